"""A model on a `FakeGpu`: small, in floating point, and like Triton's in what it reads and when.

Its layers read only what was uploaded, so that a graph's replay works on the step's numbers, and
each row is computed on its own, so that its bits depend on nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.builders.engine import TINY_MODEL, VOCAB_SIZE, engine_config
from tests.builders.fake_gpu import FakeGpu
from tgi_cli.kernels.paged_attention import Span
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.gpu_runner import GpuRunner
from tgi_cli.runtime.engine.overlapped import OverlappedEngine
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.engine.sampling.launched import MixedSampler
from tgi_cli.runtime.engine.sampling.sampler import SampledToken, Sampler, SamplerConfig
from tgi_cli.runtime.engine.sequence import PENDING, Sequence
from tgi_cli.runtime.engine.staging import Staging
from tgi_cli.runtime.layers.context import ForwardContext
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.platforms.uploads import PlainUploader, Uploader

_WIDTH = TINY_MODEL.head_dim


@dataclass(frozen=True)
class ToyPlan:
    spans: Tensor  # [N, 4]: start, end, context, row of the tables
    block_tables: Tensor
    sliding_window: int | None


class ToyAttention:
    """Attention by the letter, row by row, over one head. A slot below 0 takes nothing."""

    name = "toy"
    is_capturable = True

    def __init__(self, uploader: Uploader, block_size: int) -> None:
        self.block_size = block_size
        self._uploader = uploader

    def new_cache(
        self, num_blocks: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> Tensor:
        return torch.zeros(num_blocks, self.block_size, head_dim, dtype=dtype)

    def store(self, kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
        is_kept = slot_mapping >= 0
        cache.view(-1, _WIDTH)[slot_mapping[is_kept]] = kv[is_kept]

    def clear(self, cache: Tensor, block_ids: list[int] | Tensor) -> None:
        cache[block_ids] = 0

    def plan(
        self, spans: list[Span], block_tables: np.ndarray, sliding_window: int | None
    ) -> ToyPlan:
        rows = np.array([(s.start, s.end, s.context_len, s.row) for s in spans], dtype=np.int32)
        return ToyPlan(
            self._uploader.upload("attention.spans", rows.reshape(-1, 4)),
            self._uploader.upload("attention.block_tables", block_tables),
            sliding_window,
        )

    def attend(self, q: Tensor, cache: Tensor, plan: ToyPlan, scale: float, soft_cap: float) -> Any:
        out = torch.zeros_like(q)
        for start, end, context, row in plan.spans.tolist():
            for token in range(start, end if context else start):
                last = context - end + token
                first = max(0, last + 1 - (plan.sliding_window or last + 1))
                positions = torch.arange(first, last + 1)
                blocks = plan.block_tables[row][positions // self.block_size].long()
                kv = cache[blocks, positions % self.block_size]
                weights = torch.softmax((kv * q[token]).sum(-1), dim=0)
                out[token] = (kv * weights[:, None]).sum(0)
        return out


class ToyModel:
    """One layer of a head; what it launches takes `bytes_per_token` of the device's memory."""

    def __init__(self, gpu: FakeGpu, attention: ToyAttention) -> None:
        generator = torch.Generator().manual_seed(3)
        self.bytes_per_token = 0
        self._gpu = gpu
        self._attention = attention
        self._embedding = 2 * torch.randn(VOCAB_SIZE, _WIDTH, generator=generator)
        self._head = torch.randn(VOCAB_SIZE, _WIDTH, generator=generator)
        self.num_bytes = 0

    def forward(self, token_ids: Tensor, context: ForwardContext) -> Tensor:
        self._gpu.launch("forward", self.bytes_per_token * len(token_ids))
        x = self._embedding[token_ids] * context.cos[:, 0] + context.signed_sin[:, 0]
        [cache] = context.kv_cache.layers
        self._attention.store(x, cache, context.slot_mapping)
        out = self._attention.attend(x, cache, context.attention, 1.0, 0.0)
        windowed = self._attention.attend(x, cache, context.windowed_attention, 1.0, 0.0)
        return (x + out + windowed)[context.wanted]

    def logits(self, hidden: Tensor) -> Tensor:
        self._gpu.launch("logits")
        rows = [(self._head * row).sum(-1) for row in hidden]
        return torch.stack(rows) if rows else torch.empty(0, VOCAB_SIZE)

    def scores(self, hidden: Tensor) -> Scores:
        return Scores.of(self.logits(hidden))


def gpu_config(**changes: Any) -> EngineConfig:
    fields = {"block_size": 7, "num_blocks": 30, "max_total_tokens": 100, **changes}
    return engine_config(**fields)


def make_gpu_runner(gpu: FakeGpu, config: EngineConfig) -> tuple[GpuRunner, ToyModel, Staging]:
    staging = Staging(gpu)
    attention = ToyAttention(staging, config.block_size)
    model = ToyModel(gpu, attention)
    return GpuRunner(config, model, attention, gpu, staging), model, staging


class _ToySamples:
    def __init__(self, gpu: FakeGpu, tokens: list[SampledToken], is_garbage: list[bool]) -> None:
        ids = [
            -999 if garbage else token.token_id
            for token, garbage in zip(tokens, is_garbage, strict=True)
        ]
        self.token_ids = torch.tensor(ids, dtype=torch.int64)
        self._tokens = tokens
        self._on_host = gpu.pinned(tuple(self.token_ids.shape), torch.int64)
        gpu.copy(self._on_host, self.token_ids)

    def fetch(self) -> list[SampledToken]:
        ids = self._on_host.tolist()  # poison, if nobody has waited
        return [replace(token, token_id=i) for token, i in zip(self._tokens, ids, strict=True)]


class ToyDeviceSampler(Sampler):
    """The CPU's sampler on a device: watermarked rows it can't do, and it spoils the logits."""

    def __init__(self, gpu: FakeGpu, runner: GpuRunner, config: EngineConfig) -> None:
        super().__init__(SamplerConfig.of(config))
        self._gpu = gpu
        self._last_ids = runner._last_ids

    def needs_host(self, seq: Sequence) -> bool:
        return seq.sampling.watermark

    def launch(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> _ToySamples:
        self._gpu.launch("sample")
        seen = [self._known(seq) for seq in sequences]
        tokens = self.sample(scores, seen, bitmasks)
        scores.logits.fill_(float("nan"))
        return _ToySamples(self._gpu, tokens, [self.needs_host(seq) for seq in sequences])

    def _known(self, seq: Sequence) -> Sequence:
        if seq.token_ids[-1] != PENDING:
            return seq
        seen = copy.copy(seq)
        seen.token_ids = [*seq.token_ids[:-1], int(self._last_ids[seq.row])]
        return seen


def make_gpu_engine(
    gpu: FakeGpu, config: EngineConfig, *, reserved_new_tokens: int = 1024
) -> tuple[OverlappedEngine, ToyModel]:
    runner, model, _ = make_gpu_runner(gpu, config)
    runner.capture_graphs(config.cuda_graphs)
    host = Sampler(SamplerConfig.of(config))
    sampler = MixedSampler(gpu, ToyDeviceSampler(gpu, runner, config), host)
    engine = OverlappedEngine(config, runner, sampler, reserved_new_tokens=reserved_new_tokens)
    return engine, model


def make_plain_runner(config: EngineConfig) -> Runner:
    """The same model by the CPU's runner."""
    attention = ToyAttention(PlainUploader(torch.device("cpu")), config.block_size)
    return Runner(config, ToyModel(FakeGpu(), attention), attention)
