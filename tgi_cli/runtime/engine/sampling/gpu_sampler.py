"""Choose the next tokens on a GPU: all rows of a step together, whatever each asks for.

    scores ─► penalties, bitmask, bias, ends ─► best ─► cuts ─► draw ─► token ids, on the device
                                                          └───► best n

`Sampler` has the same steps for one row on a CPU, in the same order: equal in value, and not in
bits, as sums are fp32 here. Nothing waits: the results are on their way to the host when `launch`
returns. Steps that no row asks for aren't launched. Counts of ids for penalties lie on the device,
a row of the table for each sequence by its row of the batch, and grow there by each token that is
drawn; the host writes one anew when the sequence's row or its length isn't the one it knows.

Importing this imports Triton.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tgi_cli.kernels import penalties
from tgi_cli.kernels.best_token import best_token
from tgi_cli.kernels.penalties import kernel as changes
from tgi_cli.kernels.sampling.kernel import draw_
from tgi_cli.kernels.sampling.settings import OFF, Field
from tgi_cli.kernels.score_cuts.kernel import Rows as Scored
from tgi_cli.kernels.score_cuts.kernel import cut_, no_limits
from tgi_cli.kernels.top_scores.kernel import best_scores
from tgi_cli.runtime.engine.sampling.logits import bounded
from tgi_cli.runtime.engine.sampling.philox import uniforms
from tgi_cli.runtime.engine.sampling.sampler import SampledToken, SamplerConfig
from tgi_cli.runtime.engine.sequence import PENDING, Sequence
from tgi_cli.runtime.ipc.messages import NewRequest, TokenScore
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.platforms.gpu import Gpu
from tgi_cli.runtime.platforms.uploads import Uploader
from tgi_cli.runtime.types import SamplingParams

Numbers = NDArray[np.float64]
_WARM_UP = -1  # the request that only compiles


class GpuSampler:
    """The `DeviceSampler` of Triton's kernels."""

    def __init__(
        self, config: SamplerConfig, gpu: Gpu, uploader: Uploader, *, max_running: int
    ) -> None:
        self._vocab_size = config.vocab_size
        self._gpu = gpu
        self._uploader = uploader
        ends = sorted({i for i in config.eos_token_ids if i < config.vocab_size})
        self._end_ids = torch.tensor(ends, dtype=torch.int32, device=gpu.device)
        self._counts = torch.zeros(
            max_running, config.vocab_size, dtype=torch.int16, device=gpu.device
        )
        self._counted: dict[int, tuple[int, int]] = {}  # by row: request, tokens that are counted
        self._no_mask = torch.zeros(1, 1, dtype=torch.int32, device=gpu.device)
        self._asked: dict[int, _Asked] = {}  # by request

    def needs_host(self, seq: Sequence) -> bool:
        params = seq.sampling
        return params.watermark or (params.do_sample and params.typical_p < 1.0)

    def warm_up(self) -> None:
        """Queue every kind of launch once, so that no request waits for a compiler."""
        params = SamplingParams(
            do_sample=True,
            temperature=0.5,
            top_k=1,
            top_p=0.5,
            min_p=0.5,
            repetition_penalty=2.0,
            logit_bias={0: 1.0},
            min_tokens=1,
        )
        seq = Sequence(NewRequest(_WARM_UP, [0], 2, params, top_n_tokens=1))
        seq.row = 0
        logits = torch.zeros(1, self._vocab_size, device=self._gpu.device)
        mask = torch.full((-(-self._vocab_size // 32),), -1, dtype=torch.int32)
        self.launch(Scores.of(logits), [seq], [mask])
        self.forget(_WARM_UP)
        self._counted.clear()

    def forget(self, request_id: int) -> None:
        self._asked.pop(request_id, None)

    def launch(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> DeviceSamples:
        """Queue the sampling of `scores`, whose logits may change, and the way to the host.

        A sequence may end in `PENDING`; the token of a row that needs the host means nothing.
        """
        asked = [self._what_is_asked(seq) for seq in sequences]
        masks = [None] * len(asked) if bitmasks is None else bitmasks
        if all(each.is_nothing for each in asked) and not any(mask is not None for mask in masks):
            return DeviceSamples.of(self._gpu, scores.best_ids, scores.best_logprobs)
        table = self._table(asked, sequences, masks)
        scored = Scored(
            scores.logits,
            self._uploader.upload("sampling.settings", table),
            scores.best_ids,
            scores.best_logprobs,
        )
        scored = self._change(scored, asked, table, masks)
        samples = self._choose(scored, table)
        if (table[:, Field.COUNT_ROW] >= 0).any():
            changes.count_(self._counts, scored.settings, samples.token_ids)
            for each, seq in zip(asked, sequences, strict=True):
                if each.counts:
                    self._counted[seq.row] = (seq.request_id, seq.num_tokens + 1)
        return samples

    def _what_is_asked(self, seq: Sequence) -> _Asked:
        asked = self._asked.get(seq.request_id)
        if asked is None:
            asked = _NOTHING if self.needs_host(seq) else _Asked.of(seq, self._vocab_size)
            self._asked[seq.request_id] = asked
        return asked

    def _table(
        self, asked: Rows[_Asked], sequences: Rows[Sequence], masks: Rows[Tensor | None]
    ) -> Numbers:
        """Return the settings [N, 16] of this step."""
        table = np.stack([each.settings for each in asked])
        num_biases = num_masks = 0
        for index, (each, seq, mask) in enumerate(zip(asked, sequences, masks, strict=True)):
            row = table[index]
            if each.counts:
                row[Field.COUNT_ROW] = seq.row
                self._count(seq)
            if len(each.bias_ids):
                row[Field.BIAS_START] = num_biases
                num_biases += len(each.bias_ids)
                row[Field.BIAS_END] = num_biases
            if mask is not None:
                row[Field.MASK_ROW] = num_masks
                num_masks += 1
            row[Field.FORBIDS] = seq.num_output_tokens < each.min_tokens and len(self._end_ids) > 0
        is_drawn = table[:, Field.SAMPLES] > 0
        if is_drawn.any():
            drawn = [seq for seq, draws in zip(sequences, is_drawn, strict=True) if draws]
            table[is_drawn, Field.UNIFORM] = uniforms(
                [seq.sampling.seed for seq in drawn], [seq.num_tokens for seq in drawn]
            )
        return table

    def _count(self, seq: Sequence) -> None:
        """See to it that the device has counted every token of `seq`, a pending one included."""
        if self._counted.get(seq.row) == (seq.request_id, seq.num_tokens):
            return
        assert seq.token_ids[-1] != PENDING, f"{seq} is new in row {seq.row}"
        prompt, output = np.split(np.array(seq.token_ids), [seq.num_prompt_tokens])
        times = np.bincount(output, minlength=self._vocab_size)
        codes = 2 * np.minimum(times, penalties.MAX_COUNT)
        codes[prompt] += 1
        uploaded = self._uploader.upload("sampling.counts", codes.astype(np.int16))
        self._counts[seq.row].copy_(uploaded)

    def _change(
        self, scored: Scored, asked: Rows[_Asked], table: Numbers, masks: Rows[Tensor | None]
    ) -> Scored:
        """Change the scores as rows ask; return them with what is then the best of each."""
        logits, settings = scored.logits, scored.settings
        upload = self._uploader.upload
        words = [mask.numpy() for mask in masks if mask is not None]
        biased = [each for each in asked if len(each.bias_ids)]
        has_counts = bool((table[:, Field.COUNT_ROW] >= 0).any())
        forbids = bool(table[:, Field.FORBIDS].any())
        if not (words or biased or has_counts or forbids):
            return scored
        if words or has_counts:
            bitmasks = upload("sampling.masks", np.stack(words)) if words else self._no_mask
            changes.change_(logits, settings, self._counts, bitmasks)
        if biased:
            ids = upload("sampling.bias_ids", np.concatenate([each.bias_ids for each in biased]))
            biases = upload("sampling.biases", np.concatenate([each.biases for each in biased]))
            changes.add_bias_(logits, settings, ids, biases)
        if forbids:
            changes.forbid_(logits, settings, self._end_ids)
        ids, logprobs = best_token(logits)
        # A row that wasn't finite is reported, whatever became of it.
        logprobs = torch.where(scored.best_logprobs.isnan(), scored.best_logprobs, logprobs)
        return replace(scored, best_ids=ids, best_logprobs=logprobs)

    def _choose(self, scored: Scored, table: Numbers) -> DeviceSamples:
        ids, logprobs, highest = scored.best_ids, scored.best_logprobs, scored.best_logprobs
        limits = no_limits(scored)
        draws = table[:, Field.SAMPLES] > 0
        if draws.any():
            ids, logprobs, highest = ids.clone(), logprobs.clone(), highest.clone()
            if (table[draws, Field.TOP_K] > 0).any():
                cut_(limits, scored, Field.TOP_K)
            has_min_p = (table[draws, Field.LOG_MIN_P] > -math.inf).any()
            if (table[draws, Field.TOP_P] < 1).any() or has_min_p:
                cut_(limits, scored, Field.TOP_P)
            draw_(limits, scored, ids, logprobs, highest)
        max_n = int(table[:, Field.TOP_N].max())
        if not max_n:
            return DeviceSamples.of(self._gpu, ids, logprobs)
        top = best_scores(limits, scored, max_n)
        return DeviceSamples.of(self._gpu, ids, logprobs, (highest, *top))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks for at each of its tokens."""

    settings: Numbers  # [16], but for what changes with each token
    bias_ids: NDArray[np.int32]
    biases: NDArray[np.float32]
    counts: bool  # whether it has penalties
    min_tokens: int
    is_nothing: bool  # but the likeliest token

    @classmethod
    def of(cls, seq: Sequence, vocab_size: int) -> _Asked:
        params = seq.sampling
        counts = (
            params.repetition_penalty != 1.0
            or params.frequency_penalty != 0.0
            or params.presence_penalty != 0.0
        )
        return cls(
            settings=_settings(params, seq.top_n_tokens, vocab_size),
            bias_ids=np.array(list(params.logit_bias), dtype=np.int32),
            biases=np.array(list(params.logit_bias.values()), dtype=np.float32),
            counts=counts,
            min_tokens=params.min_tokens,
            is_nothing=seq.takes_best and not seq.top_n_tokens,
        )


_NONE = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
_NOTHING = _Asked(np.array(OFF), *_NONE, counts=False, min_tokens=0, is_nothing=True)


def _settings(params: SamplingParams, top_n: int, vocab_size: int) -> Numbers:
    settings = np.array(OFF, dtype=np.float64)
    settings[Field.REPETITION] = bounded(params.repetition_penalty)
    settings[Field.FREQUENCY] = params.frequency_penalty
    settings[Field.PRESENCE] = params.presence_penalty
    settings[Field.TOP_N] = min(top_n, vocab_size)
    if params.do_sample:
        settings[Field.SAMPLES] = 1
        settings[Field.TEMPERATURE] = bounded(params.temperature)
        settings[Field.TOP_K] = params.top_k if params.top_k < vocab_size else 0
        settings[Field.TOP_P] = bounded(params.top_p)  # of no mass at all, nothing would be left
        settings[Field.LOG_MIN_P] = math.log(params.min_p) if params.min_p else -math.inf
    return settings


@dataclass(frozen=True, slots=True)
class DeviceSamples:
    """The tokens of a launched step: on the device, and on their way to the host."""

    token_ids: Tensor  # [N] int64, on the device
    _ids: Tensor  # the same, on the host
    _logprobs: Tensor  # [N] fp32, on the host
    _top: tuple[Tensor, ...]  # on the host: highest log-probabilities; ids and scores of the best

    @classmethod
    def of(
        cls, gpu: Gpu, token_ids: Tensor, logprobs: Tensor, top: tuple[Tensor, ...] = ()
    ) -> DeviceSamples:
        def to_host(source: Tensor) -> Tensor:
            target = gpu.pinned(tuple(source.shape), source.dtype)
            gpu.copy(target, source)
            return target

        return cls(token_ids, to_host(token_ids), to_host(logprobs), tuple(map(to_host, top)))

    def fetch(self) -> list[SampledToken]:
        """Return a token for each row. The step is over: its event has been waited for."""
        ids, logprobs = self._ids.tolist(), self._logprobs.tolist()
        if not self._top:
            return [SampledToken(*pair) for pair in zip(ids, logprobs, strict=True)]
        rows = zip(*(each.tolist() for each in self._top), strict=True)
        return [
            SampledToken(token_id, logprob, _in_order(*row))
            for token_id, logprob, row in zip(ids, logprobs, rows, strict=True)
        ]


def _in_order(highest_logprob: float, ids: list[int], scores: list[float]) -> list[TokenScore]:
    """Return the best of a row, best first, then by id.

    Added in fp32, as on the device, so that the token that was chosen has one log-probability.
    """
    pairs = sorted((-score, i) for i, score in zip(ids, scores, strict=True) if i >= 0)
    falls = np.array([pair[0] for pair in pairs[:1] + pairs], dtype=np.float32)
    logprobs = (np.float32(highest_logprob) - (falls[1:] - falls[:1])).tolist()
    return [TokenScore(pair[1], logprob) for pair, logprob in zip(pairs, logprobs, strict=True)]
