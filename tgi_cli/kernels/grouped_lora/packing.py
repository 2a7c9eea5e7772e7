"""Adapters on their GPU, each with room for the largest rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.kernels.linear_tiles.packing import num_bytes

MAX_RANK = 128  # that a program's registers have room for
COLUMNS = 128  # of a tile of y
_EVEN = 16  # what a rank is filled up to a multiple of, so that 16 bytes are read at once

Pair = tuple[Tensor, Tensor]  # a [r, K], b [N_s, r] with the scale


@dataclass(frozen=True, slots=True)
class PackedLora:
    """The adapters of one projection."""

    a: Tensor  # [adapters, outputs, R, K], R the largest rank filled up, zeros after the rank
    b: Tensor  # [adapters, N, R]
    ranks: Tensor  # [adapters] int32
    column_tiles: Tensor  # [tiles, 3] int32: output, first column, column after the output's last
    is_aligned: bool  # outputs begin at multiples of 16, so that 16 bytes of y are read at once

    @property
    def num_adapters(self) -> int:
        return self.a.shape[0]

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.a, self.b, self.ranks, self.column_tiles)


def pack(
    adapters: Sequence[Sequence[Pair | None]],
    widths: Sequence[int],
    num_in: int,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> PackedLora:
    """Return each adapter's pairs, one for each output, None where it has none.

    `widths`: columns of each output, which follow one another in y; `num_in`: K.
    """
    assert dtype in (torch.float16, torch.bfloat16), dtype
    ranks = [max([0, *(len(p[0]) for p in pairs if p is not None)]) for pairs in adapters]
    assert max(ranks, default=0) <= MAX_RANK, ranks
    room = max(_EVEN, -(-max(ranks, default=0) // _EVEN) * _EVEN)
    a = torch.zeros(len(adapters), len(widths), room, num_in, dtype=dtype, device=device)
    b = torch.zeros(len(adapters), sum(widths), room, dtype=dtype, device=device)
    tiles = []
    begin = 0
    for output, width in enumerate(widths):
        end = begin + width
        for adapter, pairs in enumerate(adapters):
            if (pair := pairs[output]) is None:
                continue
            rank = len(pair[0])
            a[adapter, output, :rank] = pair[0].to(device, dtype)
            b[adapter, begin:end, :rank] = pair[1].to(device, dtype)
        tiles += [(output, first, end) for first in range(begin, end, COLUMNS)]
        begin = end
    return PackedLora(
        a=a,
        b=b,
        ranks=torch.tensor(ranks, dtype=torch.int32, device=device),
        column_tiles=torch.tensor(tiles, dtype=torch.int32, device=device),
        is_aligned=all(width % _EVEN == 0 for width in widths),
    )
