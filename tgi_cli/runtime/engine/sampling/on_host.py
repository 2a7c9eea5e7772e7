"""No sampler on the device: every row goes to the host, and the next step waits for it."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.runtime.engine.sampling.sampler import SampledToken
from tgi_cli.runtime.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class _NoSamples:
    token_ids: Tensor  # [N], zeros

    def fetch(self) -> list[SampledToken]:
        return [SampledToken(0, 0.0)] * len(self.token_ids)


class NoDeviceSampler:
    """The `DeviceSampler` of a `MixedSampler` whose host samples all rows."""

    def needs_host(self, seq: Sequence) -> bool:
        return True

    def launch(
        self,
        logits: Tensor,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> _NoSamples:
        return _NoSamples(torch.zeros(len(sequences), dtype=torch.int64, device=logits.device))

    def forget(self, request_id: int) -> None:
        pass
