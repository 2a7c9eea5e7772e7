"""The tensors that a model's files must hold, and what its weights take in memory."""

from __future__ import annotations

from math import prod

from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.quantization import Quantization, formats_of
from tgi_cli.runtime.config.quantization.format import FLOATS, StoredTensor
from tgi_cli.runtime.config.tensor_names import expected_tensors, fused_with, projections

_GGUF_TYPES = frozenset({"Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K"})


def stored_tensors(
    config: ModelConfig, quantization: Quantization | None
) -> dict[str, StoredTensor]:
    """Return what every tensor must be, by name.

    Raises:
        CorruptModelError: a projection has a size that the format can't have.
    """
    stored = {
        name: StoredTensor(shape, FLOATS | _GGUF_TYPES)
        for name, shape in expected_tensors(config).items()
    }
    if quantization is None:
        return stored
    sizes = projections(config)
    for module, format in formats_of(quantization, sizes).items():
        del stored[f"{module}.weight"]
        try:
            tensors = format.tensors(*sizes[module])
        except ValueError as exc:
            raise CorruptModelError(f"{module} can't be {format.methods[0]}: {exc}.") from exc
        stored |= {f"{module}.{suffix}": tensor for suffix, tensor in tensors.items()}
    return stored


def weights_bytes(
    config: ModelConfig, quantization: Quantization | None, plain_bytes: int, *, packs: bool
) -> int:
    """Return the bytes of all weights in memory, with `plain_bytes` for a number of a plain one.

    `packs` says that the native kernels multiply, which keep quantised weights narrow.
    """
    num_plain = num_parameters(config)
    if quantization is None or not packs:
        return num_plain * plain_bytes
    sizes = projections(config)
    formats = formats_of(quantization, sizes)
    num_bytes = 0
    for module, size in sizes.items():
        together = {formats.get(part) for part in fused_with(module)}
        format = formats.get(module)
        if together == {None}:
            continue
        num_plain -= prod(size)
        if len(together) > 1 or format is None:  # a product of several kinds holds them in fp32
            num_bytes += prod(size) * 4
        else:
            num_bytes += format.num_bytes(*size, plain_bytes)
    return num_plain * plain_bytes + num_bytes


def num_parameters(config: ModelConfig) -> int:
    return sum(prod(shape) for shape in expected_tensors(config).values())
