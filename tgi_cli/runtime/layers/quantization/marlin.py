"""GPTQ's symmetric 4 bits in the order in which Marlin's GPU kernel reads them.

Tiles of 16 input by 16 output features; four tiles beside one another are 1024 codes, put into the
order in which the 32 lanes of a warp want them, eight to a word with even ones first. Scales of a
row are reordered likewise. The published packer is the reference: github.com/IST-DASLab/marlin.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tgi_cli.runtime.config.quantization import Marlin
from tgi_cli.runtime.layers.quantization.bit_stream import unpack
from tgi_cli.runtime.layers.quantization.grouped_codes import GroupedCodes, check_scales

_TILE = 16
_ZERO = 8
_WORD_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def read_marlin(format: Marlin, tensors: Mapping[str, Tensor]) -> GroupedCodes:
    """Return the codes that the tensors of one projection hold."""
    packed, scales = tensors["B"], check_scales("s", tensors["s"])
    num_in, num_out = packed.shape[0] * _TILE, packed.shape[1] // 2
    shuffled = unpack(packed, 4).view(-1, 1024)
    codes = torch.empty_like(shuffled)
    codes[:, _code_order()] = shuffled
    tiles = codes.view(num_in // _TILE, num_out // _TILE, _TILE, _TILE)
    matrix = tiles.permute(1, 3, 0, 2).reshape(num_out, num_in)
    order = _scale_order(is_grouped=scales.shape[0] > 1)
    in_order = torch.empty_like(scales).view(-1, len(order))
    in_order[:, order] = scales.view(-1, len(order))
    by_row = in_order.view(scales.shape).T.contiguous()
    return GroupedCodes(matrix, torch.full(by_row.shape, _ZERO, dtype=torch.int32), by_row, bits=4)


def _code_order() -> Tensor:
    """Return which of four tiles' 1024 codes, row by row, is stored at each place."""
    places = []
    for lane in range(32):
        column, pair = divmod(lane, 4)
        rows = (2 * pair, 2 * pair + 1, 2 * pair + 8, 2 * pair + 9)
        mine = [16 * row + column + 8 * half for half in (0, 1) for row in rows]
        places += [
            [code + 256 * tile for code in (mine[i] for i in _WORD_ORDER)] for tile in range(4)
        ]
    return torch.tensor(places).flatten()


def _scale_order(*, is_grouped: bool) -> Tensor:
    """Return which of neighbouring output features' scales is stored at each place."""
    if is_grouped:
        return torch.arange(64).view(8, 8).T.flatten()
    starts = torch.tensor([0, 1, 8, 9, 16, 17, 24, 25])
    return (2 * torch.arange(4)[:, None] + starts).flatten()
