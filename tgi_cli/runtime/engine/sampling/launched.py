"""Sampling that waits for nothing: tokens stay on the device until their step is over.

Most rows are sampled there. Some settings are only done on the host; their rows are copied to it
and sampled as on a CPU when the step is fetched, so that the next step has to wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tgi_cli.runtime.engine.sampling.sampler import SampledToken, Sampler, StepSampler
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.platforms.gpu import Event, Gpu


class Samples(Protocol):
    """The tokens of a launched step."""

    @property
    def token_ids(self) -> Tensor:
        """[N] int64, on the device."""
        ...

    def fetch(self) -> list[SampledToken]:
        """Wait for the step, and return a token for each of its rows.

        The sequences are as they were at the launch.
        """
        ...


class LaunchingSampler(StepSampler, Protocol):
    """A sampler that can leave its tokens on the device."""

    def needs_host(self, seq: Sequence) -> bool:
        """Whether the host samples the row of `seq`, so that the device doesn't have its token."""
        ...

    def launch(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> Samples:
        """Sample as `sample` does, but wait for nothing. A sequence may end in `PENDING`."""
        ...


class DeviceSampler(Protocol):
    """A sampler on the device. What it returns for a row that needs the host means nothing."""

    def needs_host(self, seq: Sequence) -> bool: ...

    def launch(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> Samples:
        """Queue the sampling of `scores`, whose logits it may change, and the way to the host."""
        ...

    def forget(self, request_id: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _HostRow:
    index: int  # of the step's rows
    seq: Sequence
    bitmask: Tensor | None


class MixedSampler:
    """Samples on the device, and on the host what the device can't."""

    def __init__(self, gpu: Gpu, device: DeviceSampler, host: Sampler) -> None:
        self._gpu = gpu
        self._device = device
        self._host = host

    def needs_host(self, seq: Sequence) -> bool:
        return self._device.needs_host(seq)

    def forget(self, request_id: int) -> None:
        self._device.forget(request_id)
        self._host.forget(request_id)

    def sample(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> list[SampledToken]:
        """Return one token per row of `scores`, for the sequences in the same order, and wait."""
        return self.launch(scores, sequences, bitmasks).fetch()

    def launch(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> Samples:
        """Sample as `sample` does, but wait for nothing. A sequence may end in `PENDING`."""
        rows = [
            _HostRow(index, seq, None if bitmasks is None else bitmasks[index])
            for index, seq in enumerate(sequences)
            if self.needs_host(seq)
        ]
        # First, since the device's sampler may change them in place.
        shape = (len(rows), scores.logits.shape[1])
        logits = self._gpu.pinned(shape, torch.float32) if rows else torch.empty(shape)
        for place, row in enumerate(rows):
            self._gpu.copy(logits[place], scores.logits[row.index])
        samples = self._device.launch(scores, sequences, bitmasks)
        is_over = self._gpu.new_event()
        is_over.record()
        return _MixedSamples(samples, is_over, self._host, rows, logits)


@dataclass(frozen=True, slots=True)
class _MixedSamples:
    samples: Samples
    is_over: Event
    host: Sampler
    rows: list[_HostRow]
    logits: Tensor  # [rows, V], on the host

    @property
    def token_ids(self) -> Tensor:
        return self.samples.token_ids

    def fetch(self) -> list[SampledToken]:
        self.is_over.synchronize()
        tokens = self.samples.fetch()
        for row, logits in zip(self.rows, self.logits, strict=True):
            scores = Scores.of(logits[None])
            [tokens[row.index]] = self.host.sample(scores, [row.seq], [row.bitmask])
        return tokens
