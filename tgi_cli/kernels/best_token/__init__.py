"""The likeliest token of each row of scores, and its log-probability.

    id[n] = the first v with the highest logits[n, v]
    logprob[n] = logits[n, id] - log(sum_v exp(logits[n, v]))

logits: [N, V] fp32; id: [N] int64; logprob: [N] fp32, NaN where the row holds a NaN, plus infinity
or nothing but minus infinity. A row's bits depend on the row alone. `multiply` makes the scores by
a product with the head and looks at each panel of them while it is in the first-level cache;
`best_token` looks at scores that are there already, and gives the same bits. Native (`cpu.c`) where
it was built; Triton (`kernel.py`) on a GPU.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from tgi_cli.kernels import devices, linear, native

from . import reference

_PANEL = 32  # of tiles.h
_pointer, _size = native.Pointer, native.Int


def best_token(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids [N] and log-probabilities [N] of `logits` [N, V]."""
    if devices.is_gpu(logits):
        from . import kernel

        return kernel.best_token(logits)
    if not native.is_available() or logits.stride(1) != 1:
        return reference.best_token(logits)
    num_rows, num_columns = logits.shape
    ids, logprobs, peaks = _results(num_rows, num_columns)
    native.function(
        "tgi_best_token", _pointer, *(_size, _size, _size), *(_pointer, _pointer, _pointer)
    )(
        *(logits.data_ptr(), logits.stride(0), num_rows, num_columns),
        *(peaks.data_ptr(), ids.data_ptr(), logprobs.data_ptr()),
    )
    return ids, logprobs


def multiply(x: Tensor, packed: linear.PackedLinear, *, out: Tensor) -> tuple[Tensor, Tensor]:
    """Write the scores `x` [N, K] times the packed head to `out` [N, V]; return their best."""
    if isinstance(packed.weight, Tensor) or packed.input_order is not None or packed.is_gated:
        linear.multiply(x, packed, out=out)
        return best_token(out)
    num_rows, num_columns = out.shape
    linear.check_product(x, packed, out)
    ids, logprobs, peaks = _results(num_rows, num_columns)
    native.function(
        "tgi_linear_best",
        *(_pointer, _pointer, _size, _size, _pointer, _size, _pointer, _pointer, _pointer),
    )(
        *(ctypes.byref(packed.weight.descriptor), x.data_ptr(), x.stride(0), num_rows),
        *(out.data_ptr(), out.stride(0)),
        *(peaks.data_ptr(), ids.data_ptr(), logprobs.data_ptr()),
    )
    return ids, logprobs


def _results(num_rows: int, num_columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return room for ids, log-probabilities and what the search notes of each panel."""
    num_panels = -(-num_columns // _PANEL)
    return (
        torch.empty(num_rows, dtype=torch.int64),
        torch.empty(num_rows),
        torch.empty(num_rows, num_panels, 2),
    )
