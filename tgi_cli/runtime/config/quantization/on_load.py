"""Plain checkpoints that are quantised while they are loaded, by the methods without calibration.

All take the largest magnitude of a row, or of a block of 64 numbers of it, as the end of their
range. The head and the embedding stay as they are.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from tgi_cli.runtime.config.quantization.format import FLOATS, Format, StoredTensor

BLOCK_SIZE = 64  # bitsandbytes' own default
Method = Literal["eetq", "fp8", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4"]


class OnLoad(Format, frozen=True, kw_only=True, tag="on-load"):
    """eetq, bitsandbytes: int8 a row; fp8: e4m3 a row; nf4, fp4: a block of 64."""

    methods: ClassVar = ("eetq", "fp8", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")

    method: Method

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        return {"weight": StoredTensor((num_out, num_in), FLOATS)}

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        if self.method not in ("bitsandbytes-nf4", "bitsandbytes-fp4"):
            return num_out * (num_in + 4)
        if num_in % BLOCK_SIZE:
            return num_out * num_in * plain_bytes
        return num_out * (num_in // 2 + 4 * num_in // BLOCK_SIZE)
