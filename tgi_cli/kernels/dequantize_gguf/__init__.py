"""GGUF blocks to floats. Formats as ggml defines them (ggml/src/ggml-common.h, MIT).

Blocks of 32 values: Q8_0 (fp16 d; int8 q; w = d q), Q4_0 (fp16 d; nibbles; w = d (q - 8)), Q4_1
(fp16 d, m; nibbles; w = d q + m). The low nibbles are values 0..15, the high ones 16..31.

Super-blocks of 256: Q4_K and Q5_K (fp16 d, dmin; eight 6-bit scales and minima; w = d s q - dmin
m for each 32 values), Q6_K (sixteen int8 scales, fp16 d; w = d s (q - 32) for each 16).

Plain types are only widened. Everything is computed in fp32. Run once, at load.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tgi_cli.kernels.linear import Codes

BLOCK_BYTES = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
"""Values and bytes of a block, by the type's name: all types that `dequantize` knows."""


def dequantize(raw: Tensor, ggml_type: str, num_elements: int) -> Tensor:
    """Return `num_elements` fp32 values from `raw`, the blocks as uint8 in one dimension."""
    block_size, block_bytes = BLOCK_BYTES[ggml_type]
    assert num_elements % block_size == 0, (ggml_type, num_elements)
    assert raw.numel() == num_elements // block_size * block_bytes, (ggml_type, raw.numel())
    blocks = raw.view(-1, block_bytes)
    return _DEQUANTIZERS[ggml_type](blocks).reshape(-1)


def codes_of(raw: Tensor, ggml_type: str, shape: tuple[int, ...]) -> Codes | None:
    """Return a matrix [N, K] on its own grid; None for the types that have another kind of grid."""
    if ggml_type not in ("Q4_0", "Q4_1", "Q8_0"):
        return None
    num_rows, num_k = shape
    block_size, block_bytes = BLOCK_BYTES[ggml_type]
    assert num_k % block_size == 0, shape
    blocks = raw.view(-1, block_bytes)
    groups = (num_rows, num_k // block_size)
    scales = _view(blocks[:, :2], torch.float16).view(groups)
    if ggml_type == "Q8_0":
        return Codes(_view(blocks[:, 2:], torch.int8).view(shape), scales, None, block_size)
    if ggml_type == "Q4_1":
        offsets, nibbles = _view(blocks[:, 2:4], torch.float16).view(groups), blocks[:, 4:]
    else:  # d (q - 8) = d q - 8 d, and eight times an fp16 is exact, if not too large for one
        offsets, nibbles = -8 * scales, blocks[:, 2:]
        if not bool(offsets.isfinite().all()):
            return None
    return Codes(_nibbles(nibbles).view(shape), scales, offsets, block_size)


def _plain(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda blocks: _view(blocks, dtype).float()


def _view(columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Read some bytes of each block as another type; the copy aligns them."""
    return columns.clone(memory_format=torch.contiguous_format).view(dtype)


def _half(blocks: Tensor, start: int) -> Tensor:
    """The fp16 at byte `start` of each block: [blocks, 1] fp32."""
    return _view(blocks[:, start : start + 2], torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Low nibbles, then high nibbles: [..., n] to [..., 2 n]."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _view(blocks[:, 2:], torch.int8)


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Unpack eight 6-bit scales and eight minima from 12 bytes: [blocks, 8] each."""
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat((low & 63, (high & 15) | (low >> 6 << 4)), dim=-1)
    minima = torch.cat((middle & 63, (high >> 4) | (middle >> 6 << 4)), dim=-1)
    return scales, minima


def _scale_groups(blocks: Tensor, codes: Tensor) -> Tensor:
    """`codes` [blocks, 8, 32] with the header that Q4_K and Q5_K share."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scale = _half(blocks, 0) * scales
    minimum = _half(blocks, 2) * minima
    return scale[..., None] * codes - minimum[..., None]


def _q4_k(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 16:].unflatten(1, (4, 32)))  # each 32 bytes hold two groups
    return _scale_groups(blocks, codes.view(-1, 8, 32))


def _q5_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[:, 48:].unflatten(1, (4, 32))).view(-1, 8, 32)
    bits = torch.arange(8, dtype=torch.uint8)[:, None]
    fifth = (blocks[:, None, 16:48] >> bits) & 1  # bit g of byte i belongs to value i of group g
    return _scale_groups(blocks, low | (fifth << 4))


def _q6_k(blocks: Tensor) -> Tensor:
    # Two halves of 128 values; each has 64 bytes of low nibbles and 32 of high bit pairs.
    low = _nibbles(blocks[:, :128].unflatten(1, (2, 64))).view(-1, 2, 4, 32)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    high = (blocks[:, 128:192].view(-1, 2, 1, 32) >> shifts) & 3
    codes = (low | (high << 4)).view(-1, 16, 16).float() - 32
    scale = _half(blocks, 208) * _view(blocks[:, 192:208], torch.int8)
    return scale[..., None] * codes


_DEQUANTIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "F32": _plain(torch.float32),
    "F16": _plain(torch.float16),
    "BF16": _plain(torch.bfloat16),
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
