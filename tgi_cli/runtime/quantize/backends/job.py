"""What a library's process is told: one JSON object on its standard input."""

from __future__ import annotations

from typing import Literal

import msgspec

from tgi_cli.runtime.config.quantize.options import QuantizeBackend


class BackendJob(msgspec.Struct, frozen=True, kw_only=True):
    """One quantisation. Paths are absolute; `windows` are token ids."""

    backend: QuantizeBackend
    source: str  # a folder of safetensors
    into: str
    method: Literal["gptq", "awq"]
    bits: int
    group_size: int
    symmetric: bool
    desc_act: bool
    damp: float | None
    device: str
    windows: list[list[int]]
