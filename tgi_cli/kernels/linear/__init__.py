"""Matrix product with a weight that is packed once, at load.

    y = x @ weight.T + bias

x: [T, K] fp32; weight: [N, K], any float type, widened to fp32 when packed; bias: [N] fp32; y:
[T, N]. Memory bound up to about 16 rows (it reads 4 * N * K bytes), compute bound above about 64.

A row's bits must not depend on how many rows there are. oneDNN doesn't promise that, but adds
over K in one order for every count of rows from two up (measured, and `rows_are_independent`
looks); for one row it takes another kernel, so a row that is alone is given a companion.

oneDNN's blocked weight layout runs 1.2 to 3 times as fast as torch's `linear` at 2 to 32 rows
(docs/performance.md). Where torch was built without oneDNN the plain product serves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import reference

# The layout is chosen for this many rows and kept for all: a second copy would double the memory.
_LAYOUT_ROWS = 32


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_reorder_linear_weight"
    )


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A weight in the layout of the implementation that will multiply it."""

    weight: Tensor
    bias: Tensor | None
    is_onednn: bool
    num_out_features: int
    num_bytes: int


def pack(weight: Tensor, bias: Tensor | None = None) -> PackedLinear:
    """Copy `weight` [N, K] into the fastest layout at hand; the caller drops the original."""
    weight = weight.float().contiguous()
    num_out, num_bytes = weight.shape[0], weight.numel() * 4
    is_onednn = _has_onednn()
    if is_onednn:
        weight = torch.ops.mkldnn._reorder_linear_weight(weight, _LAYOUT_ROWS)
    bias = None if bias is None else bias.float().contiguous()
    return PackedLinear(weight, bias, is_onednn, num_out, num_bytes)


def linear(x: Tensor, packed: PackedLinear) -> Tensor:
    """Return `x` [T, K] times the packed weight: [T, N]."""
    if packed.is_onednn:
        if x.shape[0] == 1:
            return _onednn(x.expand(2, -1), packed)[:1]
        return _onednn(x, packed)
    return reference.linear(x, packed.weight, packed.bias)


def rows_are_independent(packed: PackedLinear, num_in_features: int) -> bool:
    """Look whether the first rows of products of 1, 2, 7 and 65 rows are the same bits."""
    x = torch.linspace(-1.0, 1.0, 65 * num_in_features).sin().view(65, num_in_features)
    whole = linear(x, packed)
    return all(torch.equal(linear(x[:rows], packed), whole[:rows]) for rows in (1, 2, 7))


def _onednn(x: Tensor, packed: PackedLinear) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed.weight, packed.bias, "none", [], "")  # type: ignore[no-any-return]


def implementation() -> str:
    """Name what `linear` runs on, for the log."""
    return "torch onednn fp32" if _has_onednn() else "torch fp32"
