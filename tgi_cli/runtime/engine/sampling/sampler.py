"""Choose the next token of each sequence from its row of logits.

Greedy rows without penalties share one arg-max; every other row goes through `logits.py` alone.
The random number of a token is a function of the request's seed and the token's position only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.kernels.best_token import best_token
from tgi_cli.runtime.engine.sampling import logits as steps
from tgi_cli.runtime.engine.sampling.philox import uniform
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.types import SamplingParams


@dataclass(frozen=True, slots=True)
class SampledToken:
    token_id: int
    logprob: float  # after all steps; NaN if the row wasn't finite


class _History:
    """Which ids a sequence holds, kept up to date token by token; only for rows with penalties."""

    def __init__(self, vocab_size: int) -> None:
        self.seen = torch.zeros(vocab_size, dtype=torch.bool)
        self.output_counts = torch.zeros(vocab_size, dtype=torch.float32)
        self._num_tokens = 0

    def catch_up(self, seq: Sequence) -> None:
        new = seq.token_ids[self._num_tokens :]
        self.seen[new] = True
        for token_id in seq.token_ids[max(self._num_tokens, seq.num_prompt_tokens) :]:
            self.output_counts[token_id] += 1
        self._num_tokens = seq.num_tokens


class Sampler:
    """Samples rows and remembers the ids of the sequences whose penalties need them."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._histories: dict[int, _History] = {}

    def forget(self, request_id: int) -> None:
        self._histories.pop(request_id, None)

    def sample(self, logits: Tensor, sequences: list[Sequence]) -> list[SampledToken]:
        """Return one token per row of `logits` [N, V] float32, for the sequences in the same order.

        A row that isn't finite gives a log-probability of NaN.
        """
        best, logprobs = best_token(logits)
        sampled = []
        for row, token_id, logprob, seq in zip(
            logits, best.tolist(), logprobs.tolist(), sequences, strict=True
        ):
            if seq.sampling.do_sample or _has_penalties(seq.sampling):
                sampled.append(self._sample_row(row, seq, seq.sampling))
            else:
                sampled.append(SampledToken(token_id, logprob))
        return sampled

    def _sample_row(self, row: Tensor, seq: Sequence, params: SamplingParams) -> SampledToken:
        if not bool(torch.isfinite(row).all()):
            return SampledToken(0, float("nan"))
        row = self._apply_penalties(row, seq, params)
        if not params.do_sample:
            token_id = int(row.argmax())
            return SampledToken(token_id, float(torch.log_softmax(row, dim=-1)[token_id]))
        candidates = steps.Candidates(steps.apply_temperature(row, params.temperature), ids=None)
        if params.top_k:
            candidates = steps.top_k(candidates, params.top_k)
        if params.top_p < 1.0:
            candidates = steps.top_p(candidates, params.top_p)
        if params.typical_p < 1.0:
            candidates = steps.typical_p(candidates, params.typical_p)
        return SampledToken(*steps.pick(candidates, uniform(params.seed, seq.num_tokens)))

    def _apply_penalties(self, row: Tensor, seq: Sequence, params: SamplingParams) -> Tensor:
        if not _has_penalties(params):
            return row
        history = self._histories.setdefault(seq.request_id, _History(self._vocab_size))
        history.catch_up(seq)
        if params.repetition_penalty != 1.0:
            row = steps.apply_repetition_penalty(row, history.seen, params.repetition_penalty)
        if params.frequency_penalty != 0.0:
            row = steps.apply_frequency_penalty(
                row, history.output_counts, params.frequency_penalty
            )
        return row


def _has_penalties(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1.0 or params.frequency_penalty != 0.0
