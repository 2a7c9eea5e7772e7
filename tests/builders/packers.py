"""Quantised tensors written from the formats' published layouts, code by code.

Plain loops on purpose: they share nothing with the readers that they test. q: codes [N, K]; z: zero
points [N, G]; s: scales [N, G]; groups: [K].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class RandomGrid:
    q: Tensor
    z: Tensor
    s: Tensor
    groups: Tensor

    def weights(self) -> Tensor:
        """Return (q - z) * s [N, K], computed in fp64 and rounded once to fp32."""
        steps = self.q.double() - self.z.double()[:, self.groups]
        return (steps * self.s.double()[:, self.groups]).float()


def random_grid(
    num_out: int,
    num_in: int,
    group_size: int | None,
    bits: int = 4,
    *,
    is_symmetric: bool = False,
    lowest_zero: int = 0,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
) -> RandomGrid:
    generator = torch.Generator().manual_seed(seed)
    size = group_size or num_in
    shape = (num_out, num_in // size)
    q = torch.randint(0, 1 << bits, (num_out, num_in), generator=generator)
    z = torch.randint(lowest_zero, 1 << bits, shape, generator=generator)
    if is_symmetric:
        z = torch.full(shape, 1 << (bits - 1))
    s = (torch.rand(shape, generator=generator) * 0.02 + 1e-4).to(dtype)
    return RandomGrid(q, z, s, torch.arange(num_in) // size)


def bit_stream(codes: Tensor, bits: int) -> Tensor:
    """Return each row of `codes` [R, C] as one number, the first code lowest, in 32-bit words."""
    rows = []
    num_words = -(-codes.shape[1] * bits // 32)
    for row in codes.tolist():
        number = 0
        for place, code in enumerate(row):
            number |= code << (bits * place)
        raw = number.to_bytes(num_words * 4, "little")
        rows.append(torch.from_numpy(np.frombuffer(raw, dtype="<i4").copy()))
    return torch.stack(rows)


def pack_gptq(grid: RandomGrid, bits: int, *, version: int) -> dict[str, Tensor]:
    stored = grid.z - 1 if version == 1 else grid.z
    return {
        "qweight": bit_stream(grid.q, bits).T.contiguous(),
        "qzeros": bit_stream(stored.T, bits),
        "scales": grid.s.T.contiguous(),
        "g_idx": grid.groups.int(),
    }


def pack_awq(grid: RandomGrid) -> dict[str, Tensor]:
    def pack(features: Tensor) -> Tensor:  # [R, N]
        columns = [8 * (i // 8) + AWQ_ORDER[i % 8] for i in range(features.shape[1])]
        return bit_stream(features[:, columns], 4)

    return {
        "qweight": pack(grid.q.T),
        "qzeros": pack(grid.z.T),
        "scales": grid.s.T.contiguous(),
    }


def pack_marlin(grid: RandomGrid) -> dict[str, Tensor]:
    num_out, num_in = grid.q.shape
    k, n = torch.meshgrid(torch.arange(num_in), torch.arange(num_out), indexing="ij")
    row, column, tile = k % 16, n % 16, n // 16 % 4
    lane = column % 8 * 4 + row % 8 // 2
    place = column // 8 * 4 + row // 8 * 2 + row % 2  # of the lane's eight codes
    nibble = torch.tensor([AWQ_ORDER.index(i) for i in range(8)])[place]
    nibbles = torch.zeros(num_in // 16, num_out * 2, 8, dtype=torch.int64)
    nibbles[k // 16, n // 64 * 128 + lane * 4 + tile, nibble] = grid.q.T
    packed = bit_stream(nibbles.flatten(1), 4)
    scales = grid.s.T.contiguous()
    stored = torch.empty_like(scales)
    for place in range(num_out):
        if scales.shape[0] > 1:
            source = place // 64 * 64 + place % 8 * 8 + place // 8 % 8
        else:
            within = place % 32
            source = place // 32 * 32 + within // 8 * 2 + (0, 1, 8, 9, 16, 17, 24, 25)[within % 8]
        stored[:, place] = scales[:, source]
    return {"B": packed, "s": stored}


def pack_compressed(grid: RandomGrid, bits: int, *, is_symmetric: bool) -> dict[str, Tensor]:
    tensors = {"weight_packed": bit_stream(grid.q, bits), "weight_scale": grid.s}
    if not is_symmetric:
        tensors["weight_zero_point"] = bit_stream(grid.z.T, bits).T.contiguous()
    return tensors
