"""How far a quantised model is from its original, on text that it wasn't calibrated on.

The original runs first and leaves its final hidden states and what it generates; the logits of
both are then made a few rows at a time, so that there are never many of them, and the two models
are never in memory together. P and Q are the next-token distributions of original and candidate:

    KL(P || Q) = sum_v P(v) (log P(v) - log Q(v)),  in nats, the mean and 99th percentile of tokens
    perplexity = exp(mean of -log Q(next token))
    top-1      = share of tokens where both find the same one most likely
    greedy     = prompts whose continuations are the same, and the share of tokens before the first
                 difference
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tgi_cli.runtime.hub.locate import LocatedModel
from tgi_cli.runtime.quantize.grid import Grid
from tgi_cli.runtime.quantize.measured_model import (
    Load,
    MeasuredModel,
    load_head,
    room_for,
    rounded,
    served,
)
from tgi_cli.runtime.quantize.report import Comparison, Greedy, Quality, Side

if TYPE_CHECKING:
    from torch import Tensor

Say = Callable[[str], None]

NUM_PROMPTS = 32
_PROMPT_TOKENS = 48
_NEW_TOKENS = 32
_ROWS = 64  # of logits at a time


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """Windows of token ids, and the prompts that greedy continuations begin with."""

    name: str
    windows: list[list[int]]
    prompts: list[list[int]]

    @property
    def max_tokens(self) -> int:
        """Tokens for which a measured model needs room in its cache."""
        sequence = room_for(len(self.prompts[0]) + _NEW_TOKENS + 1)
        return max(*map(len, self.windows), len(self.prompts) * sequence)


def evaluation_text(name: str, windows: list[list[int]]) -> EvaluationText:
    """Return what is measured on: the windows, and prompts cut out of them, evenly apart."""
    ids = [token for window in windows for token in window]
    length = max(1, min(_PROMPT_TOKENS, len(ids) // 2))
    step = (len(ids) - length) / NUM_PROMPTS
    starts = [int(number * step) for number in range(NUM_PROMPTS)]
    return EvaluationText(name, windows, [ids[start : start + length] for start in starts])


def compare(
    base: LocatedModel,
    candidate: LocatedModel,
    text: EvaluationText,
    say: Say,
    *,
    grid: Grid | None = None,
) -> Comparison:
    """Measure `candidate` against `base`, and with `grid` plain rounding to it as well."""
    say("measuring the original")
    original = _Original(base, text)
    say("measuring the quantised model")
    quality, after = _measure(original, candidate, served(candidate))
    rounding = None
    if grid is not None:
        say("measuring plain rounding, to compare")
        rounding, _ = _measure(original, base, rounded(base, grid))
    return Comparison(quality=quality, rounding=rounding, before=original.side, after=after)


class _Original:
    """The original's answers, kept; its weights aren't, but for the head."""

    def __init__(self, located: LocatedModel, text: EvaluationText) -> None:
        model = MeasuredModel(located.config, served(located), text.max_tokens)
        self.text = text
        self.hidden = [model.hidden(window) for window in text.windows]
        self.greedy = model.greedy(text.prompts, _NEW_TOKENS)
        self.side = _side(located, model, text)
        del model
        self.head = load_head(located)


@dataclass(slots=True)
class _Sums:
    """What is added up over tokens, in fp64."""

    divergences: list[Tensor] = field(default_factory=list)
    num_same_top: int = 0
    loss: float = 0.0
    original_loss: float = 0.0
    num_losses: int = 0

    def add(self, original: Tensor, candidate: Tensor, next_ids: Tensor) -> None:
        """Add rows of logits [N, V]; `next_ids` may be one shorter, at a window's end."""
        p, q = original.log_softmax(-1), candidate.log_softmax(-1)
        self.divergences.append((p.exp() * (p - q)).sum(-1).double())
        self.num_same_top += int((p.argmax(-1) == q.argmax(-1)).sum())
        rows = torch.arange(len(next_ids))
        self.loss -= float(q[rows, next_ids].double().sum())
        self.original_loss -= float(p[rows, next_ids].double().sum())
        self.num_losses += len(next_ids)

    def quality(self, greedy: Greedy | None) -> Quality:
        divergences = torch.cat(self.divergences)
        return Quality(
            num_tokens=len(divergences),
            perplexity=_exp(self.loss / self.num_losses),
            original_perplexity=_exp(self.original_loss / self.num_losses),
            mean_kl=float(divergences.mean()),
            p99_kl=float(divergences.quantile(0.99)),
            top1=self.num_same_top / len(divergences),
            greedy=greedy,
        )


def _measure(original: _Original, located: LocatedModel, load: Load) -> tuple[Quality, Side]:
    text = original.text
    model = MeasuredModel(located.config, load, text.max_tokens)
    sums = _Sums()
    with torch.inference_mode():
        for window, kept in zip(text.windows, original.hidden, strict=True):
            hidden = model.hidden(window)
            next_ids = torch.tensor(window[1:])
            for start in range(0, len(window), _ROWS):
                rows = slice(start, start + _ROWS)
                sums.add(original.head(kept[rows]), model.logits(hidden[rows]), next_ids[rows])
    greedy = _agreement(original.greedy, model.greedy(text.prompts, _NEW_TOKENS))
    return sums.quality(greedy), _side(located, model, text)


def _side(located: LocatedModel, model: MeasuredModel, text: EvaluationText) -> Side:
    return Side(
        file_bytes=located.weights.num_bytes,
        memory_bytes=model.num_bytes,
        load_s=model.load_s,
        decode_tokens_per_s=_decode_speed(model, text.prompts[0]),
    )


def _agreement(expected: list[list[int]], found: list[list[int]]) -> Greedy:
    num_same = [_num_same(*pair) for pair in zip(expected, found, strict=True)]
    num_tokens = sum(map(len, expected))
    return Greedy(
        num_prompts=len(expected),
        num_identical=sum(n == len(e) for n, e in zip(num_same, expected, strict=True)),
        same_tokens=sum(num_same) / num_tokens,
    )


def _num_same(expected: list[int], found: list[int]) -> int:
    """Return how many tokens are the same before the first that differs."""
    count = 0
    while count < len(expected) and expected[count] == found[count]:
        count += 1
    return count


def _decode_speed(model: MeasuredModel, prompt: list[int]) -> float:
    """Return tokens per second of one sequence: the median of three, without the first token."""
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        model.greedy([prompt], 1)
        first = time.perf_counter()
        model.greedy([prompt], _NEW_TOKENS + 1)
        ended = time.perf_counter()
        rates.append(_NEW_TOKENS / max(1e-9, (ended - first) - (first - began)))
    return sorted(rates)[1]


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf
