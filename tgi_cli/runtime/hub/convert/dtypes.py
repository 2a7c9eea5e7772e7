"""Torch's types as safetensors names them, and the cast of a conversion."""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.errors import ConversionError
from tgi_cli.runtime.config.model_config import Dtype
from tgi_cli.runtime.models.weights import TORCH_DTYPES

SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_CAST = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


def target_dtype(stored: torch.dtype, wanted: Dtype | None) -> torch.dtype:
    """Return the type in which a tensor is written: only ordinary floats are cast."""
    return TORCH_DTYPES[wanted] if wanted is not None and stored in _CAST else stored


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the tensor rounded to `dtype`.

    Raises:
        ConversionError: a number is too large for it.
    """
    result = tensor.to(dtype)
    if dtype is torch.float16 and tensor.dtype is not dtype:
        overflows = result.isinf() & tensor.isfinite()
        if bool(overflows.any()):
            raise ConversionError(
                f"Tensor {name!r} has numbers that are too large for float16.",
                hint="Convert to bfloat16, or keep the type as stored.",
            )
    return result
