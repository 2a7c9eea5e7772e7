"""Quantised weights as files hold them, to what the kernels multiply: one file a format.

A format is one function, from the tensors of a projection to its matrix [N, K]: `Codes` where the
native kernels have its grid, else plain floats. What the tensors are called and shaped is in
`runtime/config/quantization`; both tables must name a format for it to be served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import (
    Awq,
    BitsAndBytesInt8,
    FloatQuantized,
    Fp4,
    Fp8,
    Gptq,
    IntQuantized,
    Marlin,
    Nf4,
    OnLoad,
    PackQuantized,
    StoredFormat,
)
from tgi_cli.runtime.config.quantization.on_load import Method
from tgi_cli.runtime.layers.quantization import bitsandbytes
from tgi_cli.runtime.layers.quantization.awq import read_awq
from tgi_cli.runtime.layers.quantization.errors import BadTensorError
from tgi_cli.runtime.layers.quantization.fp8 import quantize_fp8, read_fp8
from tgi_cli.runtime.layers.quantization.gptq import read_gptq
from tgi_cli.runtime.layers.quantization.grouped_codes import GroupedCodes, matrix_of
from tgi_cli.runtime.layers.quantization.int8 import quantize_int8, read_int8
from tgi_cli.runtime.layers.quantization.marlin import read_marlin
from tgi_cli.runtime.layers.quantization.pack_quantized import read_pack_quantized

__all__ = ["BadTensorError", "load_matrix"]

Loader = Callable[[Any, Mapping[str, Tensor]], Tensor | Codes]


def _on_grid(read: Callable[[Any, Mapping[str, Tensor]], GroupedCodes]) -> Loader:
    return lambda format, tensors: matrix_of(read(format, tensors))


_METHODS: dict[Method, Callable[[Tensor], Tensor | Codes]] = {
    "bitsandbytes": bitsandbytes.quantize_int8,
    "bitsandbytes-fp4": partial(bitsandbytes.quantize_4bit, kind="fp4"),
    "bitsandbytes-nf4": partial(bitsandbytes.quantize_4bit, kind="nf4"),
    "eetq": quantize_int8,
    "fp8": quantize_fp8,
}


def _quantize(format: OnLoad, tensors: Mapping[str, Tensor]) -> Tensor | Codes:
    return _METHODS[format.method](tensors["weight"])


_LOADERS: dict[type[StoredFormat], Loader] = {
    Awq: _on_grid(read_awq),
    BitsAndBytesInt8: bitsandbytes.read_int8,
    FloatQuantized: read_fp8,
    Fp4: bitsandbytes.read_4bit,
    Fp8: read_fp8,
    Gptq: _on_grid(read_gptq),
    IntQuantized: _on_grid(read_int8),
    Marlin: _on_grid(read_marlin),
    Nf4: bitsandbytes.read_4bit,
    OnLoad: _quantize,
    PackQuantized: _on_grid(read_pack_quantized),
}


def load_matrix(format: StoredFormat, tensors: Mapping[str, Tensor]) -> Tensor | Codes:
    """Return the matrix [N, K] of one projection; `tensors` go by the names that `format` gives.

    Raises:
        BadTensorError: numbers that no such matrix has, such as a scale that is infinite.
    """
    return _LOADERS[type(format)](format, tensors)
