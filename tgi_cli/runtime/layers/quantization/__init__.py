"""Quantised weights as files hold them, to what the kernels multiply: one file a format.

A format is one function, from the tensors of a projection to its matrix [N, K]: `Codes` where the
native kernels have its grid, else plain floats. What the tensors are called and shaped is in
`runtime/config/quantization`; both tables must name a format for it to be served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import (
    Awq,
    Gptq,
    Marlin,
    PackQuantized,
    Quantization,
)
from tgi_cli.runtime.layers.quantization.awq import read_awq
from tgi_cli.runtime.layers.quantization.errors import BadTensorError
from tgi_cli.runtime.layers.quantization.gptq import read_gptq
from tgi_cli.runtime.layers.quantization.grid import Grid, matrix_of
from tgi_cli.runtime.layers.quantization.marlin import read_marlin
from tgi_cli.runtime.layers.quantization.pack_quantized import read_pack_quantized

__all__ = ["BadTensorError", "load_matrix"]

Loader = Callable[[Any, Mapping[str, Tensor]], Tensor | Codes]


def _on_grid(read: Callable[[Any, Mapping[str, Tensor]], Grid]) -> Loader:
    return lambda format, tensors: matrix_of(read(format, tensors))


_LOADERS: dict[type[Quantization], Loader] = {
    Awq: _on_grid(read_awq),
    Gptq: _on_grid(read_gptq),
    Marlin: _on_grid(read_marlin),
    PackQuantized: _on_grid(read_pack_quantized),
}


def load_matrix(format: Quantization, tensors: Mapping[str, Tensor]) -> Tensor | Codes:
    """Return the matrix [N, K] of one projection; `tensors` go by the names that `format` gives.

    Raises:
        BadTensorError: numbers that no such matrix has, such as a scale that is infinite.
    """
    return _LOADERS[type(format)](format, tensors)
