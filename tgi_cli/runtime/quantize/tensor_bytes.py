"""Between torch tensors and the bytes of safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tgi_cli.runtime.hub.convert.dtypes import SAFETENSORS_DTYPES
from tgi_cli.runtime.hub.convert.plan import bytes_of
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile
from tgi_cli.runtime.hub.safetensors_writer import SafetensorsWriter, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}


def spec_of(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(name, SAFETENSORS_DTYPES[tensor.dtype], tuple(tensor.shape))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one safetensors file. Raises `OSError` as the disk does."""
    with SafetensorsWriter(path, [spec_of(*item) for item in tensors.items()], metadata) as writer:
        for name, tensor in tensors.items():
            writer.write(name, bytes_of(tensor))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return copies of all tensors of a file.

    Raises:
        ModelNotFoundError, CorruptModelError: as the file's reader.
    """
    file = SafetensorsFile(path)
    tensors = {}
    for name, info in file.tensors.items():
        flat = torch.frombuffer(bytearray(file.read(name)), dtype=torch.uint8)
        tensors[name] = flat.view(_DTYPES[info.dtype]).view(info.shape)
    return tensors
