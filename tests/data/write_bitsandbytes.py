"""Write bitsandbytes.safetensors: weights as the library itself quantises, saves and reads them.

    python -m tests.data.write_bitsandbytes          in an environment with bitsandbytes 0.50

Not run by the tests, which read the file.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FILE = Path(__file__).with_name("bitsandbytes.safetensors")
SHAPES = {
    "nf4": (6, 192),
    "fp4": (6, 192),  # stored as fp16
    "nested": (90, 192),  # nf4, double quantisation: 270 blocks, so two blocks of absmax
    "odd": (7, 33),  # nf4: blocks go on from row to row, and the last one is short
    "int8": (5, 37),
}


def weight_of(name: str) -> torch.Tensor:
    """Return fp16 numbers that each machine makes alike; the first row is zeros."""
    num_out, num_in = SHAPES[name]
    index = torch.arange(num_out * num_in)
    uniform = (index * 40503 % 65521).double() / 65521 * 2 - 1
    weight = (uniform**3 * 0.1).half().view(num_out, num_in)
    weight[0] = 0
    return weight


def main() -> None:
    library: Any = import_module("bitsandbytes.functional")
    tensors: dict[str, torch.Tensor] = {}
    for name in ("nf4", "fp4", "nested", "odd"):
        packed, state = library.quantize_4bit(
            weight_of(name),
            quant_type="fp4" if name == "fp4" else "nf4",
            compress_statistics=name == "nested",
            quant_storage=torch.float16 if name == "fp4" else torch.uint8,
        )
        tensors[f"{name}.weight"] = packed
        for suffix, tensor in state.as_dict(packed=True).items():
            tensors[f"{name}.weight.{suffix}"] = tensor
        if name == "nested":  # its weights take too much room, and absmax says as much
            absmax = library.dequantize_blockwise(state.absmax, state.state2) + state.offset
            tensors["nested.absmax_read"] = absmax
        else:
            tensors[f"{name}.read"] = _read(packed, state)
    # Without the row of zeros, which the library divides by.
    codes, largest, _ = library.int8_vectorwise_quant(weight_of("int8")[1:])
    tensors["int8.weight"], tensors["int8.SCB"] = codes, largest
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, FILE)


def _read(packed: torch.Tensor, state: Any) -> torch.Tensor:
    """Return the weights in fp32, by the library's portable code: others round absmax to bf16."""
    compute = import_module("bitsandbytes.backends.default.ops")._dequantize_4bit_compute
    codes = packed.view(torch.uint8).flatten()
    return compute(codes, state.absmax, state.code, 64, state.shape, torch.float32)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
