"""Choose the next token of each sequence from its row of logits.

Greedy rows that nothing changes share one arg-max; every other row goes through the steps of
`logits.py` alone, in the order of `SamplingParams`. The random number of a token is a function of
the request's seed and the token's position only. Log-probabilities are after all steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tgi_cli.kernels.best_token import best_token
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.sampling import logits as steps
from tgi_cli.runtime.engine.sampling.philox import uniform
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.ipc.messages import TokenScore
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.text import watermark
from tgi_cli.runtime.types import SamplingParams


@dataclass(frozen=True, slots=True)
class SampledToken:
    token_id: int
    logprob: float  # NaN if the row wasn't finite
    top: Rows[TokenScore] = ()  # best first; empty when not asked for


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    vocab_size: int
    eos_token_ids: tuple[int, ...] = ()
    watermark_gamma: float = 0.5
    watermark_delta: float = 2.0

    @classmethod
    def of(cls, config: EngineConfig) -> SamplerConfig:
        return cls(
            vocab_size=config.model.vocab_size,
            eos_token_ids=config.eos_token_ids,
            watermark_gamma=config.watermark_gamma,
            watermark_delta=config.watermark_delta,
        )


class StepSampler(Protocol):
    """What the engine asks of a sampler."""

    def sample(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> list[SampledToken]:
        """Return one token per row of `scores`, for the sequences in the same order."""
        ...

    def forget(self, request_id: int) -> None:
        """Drop what was remembered of a sequence, if anything."""
        ...


class _Memory:
    """What a sequence's steps need besides its row, made once and kept up to date."""

    def __init__(self, params: SamplingParams) -> None:
        self.seen_ids = _DistinctIds()  # of prompt and output
        self.output_ids = _DistinctIds()
        self.bias_ids = torch.tensor(list(params.logit_bias), dtype=torch.int64)
        self.biases = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)
        self._num_tokens = 0

    def catch_up(self, seq: Sequence) -> None:
        self.seen_ids.add(seq.token_ids[self._num_tokens :])
        self.output_ids.add(seq.token_ids[max(self._num_tokens, seq.num_prompt_tokens) :])
        self._num_tokens = seq.num_tokens


class _DistinctIds:
    """Ids in the order in which they first came, and how often each did."""

    def __init__(self) -> None:
        self.ids = torch.empty(0, dtype=torch.int64)
        self.counts = torch.empty(0)
        self._places: dict[int, int] = {}

    def add(self, token_ids: list[int]) -> None:
        places = self._places
        new = [i for i in dict.fromkeys(token_ids) if i not in places]
        if new:
            places.update(zip(new, range(len(places), len(places) + len(new)), strict=True))
            self.ids = torch.cat((self.ids, torch.tensor(new)))
            self.counts = torch.cat((self.counts, torch.zeros(len(new))))
        where = torch.tensor([places[i] for i in token_ids], dtype=torch.int64)
        self.counts.index_add_(0, where, torch.ones(len(where)))


class Sampler:
    """Samples rows and remembers the ids of the sequences whose steps need them."""

    def __init__(self, config: SamplerConfig) -> None:
        self._config = config
        self._eos_token_ids = torch.tensor(
            [i for i in config.eos_token_ids if i < config.vocab_size], dtype=torch.int64
        )
        self._all_ids = np.arange(config.vocab_size)
        self._memories: dict[int, _Memory] = {}

    def forget(self, request_id: int) -> None:
        self._memories.pop(request_id, None)

    def sample(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> list[SampledToken]:
        """Return one token per row of `scores`, for the sequences in the same order.

        `bitmasks` are what a grammar allows each to be, [ceil(V / 32)] int32 as in
        `steps.apply_bitmask`, or None. A row that isn't finite gives a log-probability of NaN.
        """
        logits = scores.logits
        sampled = []
        for index, (token_id, logprob, seq) in enumerate(
            zip(scores.best_ids.tolist(), scores.best_logprobs.tolist(), sequences, strict=True)
        ):
            bitmask = None if bitmasks is None else bitmasks[index]
            if math.isnan(logprob):
                sampled.append(SampledToken(token_id, logprob))
            elif not seq.takes_best or bitmask is not None:
                sampled.append(self._sample_row(logits[index], seq, bitmask))
            elif seq.top_n_tokens:
                sampled.append(_best(logits[index], token_id, logprob, seq))
            else:
                sampled.append(SampledToken(token_id, logprob))
        return sampled

    def _sample_row(self, row: Tensor, seq: Sequence, bitmask: Tensor | None) -> SampledToken:
        params = seq.sampling
        row = self._change_scores(row, seq, params)
        if bitmask is not None:
            row = steps.apply_bitmask(row, bitmask)
        if seq.num_output_tokens < params.min_tokens and len(self._eos_token_ids):
            row = steps.forbid(row, self._eos_token_ids)
        if not params.do_sample:
            best, logprobs = best_token(row[None])
            return _best(row, int(best), float(logprobs), seq)
        candidates = steps.Candidates(steps.apply_temperature(row, params.temperature), ids=None)
        candidates = _cut(candidates, params)
        picked = steps.pick(candidates, uniform(params.seed, seq.num_tokens))
        top = _report(candidates, seq, picked.best_logprob)
        return SampledToken(picked.token_id, picked.logprob, top)

    def _change_scores(self, row: Tensor, seq: Sequence, params: SamplingParams) -> Tensor:
        if params.watermark:
            previous = np.array(seq.token_ids[-1:])
            green = watermark.green(previous, self._all_ids, self._config.watermark_gamma)
            row = steps.apply_watermark(row, torch.from_numpy(green), self._config.watermark_delta)
        if not (
            params.repetition_penalty != 1.0
            or params.frequency_penalty
            or params.presence_penalty
            or params.logit_bias
        ):
            return row
        memory = self._memories.get(seq.request_id)
        if memory is None:
            memory = _Memory(params)
            self._memories[seq.request_id] = memory
        memory.catch_up(seq)
        output = memory.output_ids
        if params.repetition_penalty != 1.0:
            row = steps.apply_repetition_penalty(
                row, memory.seen_ids.ids, params.repetition_penalty
            )
        if params.frequency_penalty:
            row = steps.apply_frequency_penalty(
                row, output.ids, output.counts, params.frequency_penalty
            )
        if params.presence_penalty:
            row = steps.apply_presence_penalty(row, output.ids, params.presence_penalty)
        if params.logit_bias:
            row = steps.apply_bias(row, memory.bias_ids, memory.biases)
        return row


def _cut(candidates: steps.Candidates, params: SamplingParams) -> steps.Candidates:
    if params.top_k:
        candidates = steps.top_k(candidates, params.top_k)
    if params.top_p < 1.0:
        candidates = steps.top_p(candidates, params.top_p)
    if params.min_p > 0.0:
        candidates = steps.min_p(candidates, params.min_p)
    if params.typical_p < 1.0:
        candidates = steps.typical_p(candidates, params.typical_p)
    return candidates


def _best(row: Tensor, token_id: int, logprob: float, seq: Sequence) -> SampledToken:
    return SampledToken(token_id, logprob, _report(steps.Candidates(row, None), seq, logprob))


def _report(candidates: steps.Candidates, seq: Sequence, best_logprob: float) -> Rows[TokenScore]:
    if not seq.top_n_tokens or math.isnan(best_logprob):  # nothing may be picked
        return ()
    return steps.best_scores(candidates, seq.top_n_tokens, best_logprob)
