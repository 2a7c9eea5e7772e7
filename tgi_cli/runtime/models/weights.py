"""From a checkpoint's bytes to torch tensors, one at a time.

Every tensor is rounded to the weights' type, so that all sources of the same numbers give the
same model. The reader has checked names, shapes and bounds; here is only arithmetic.
"""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import Tensor

from tgi_cli.errors import CorruptModelError, UnsupportedModelError
from tgi_cli.kernels.dequantize_gguf import codes_of, dequantize
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.model_config import Dtype, KvCacheDtype, ModelConfig
from tgi_cli.runtime.config.quantization import StoredFormat, formats_of
from tgi_cli.runtime.config.tensor_names import projections
from tgi_cli.runtime.hub.weights_reader import RawTensor, WeightsReader
from tgi_cli.runtime.layers.linear import can_multiply, side_by_side
from tgi_cli.runtime.layers.placement import CPU, Placement
from tgi_cli.runtime.layers.quantization import BadTensorError, load_matrix

_PLAIN_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_WIDER_THAN_FLOAT16 = {"F64", "F32", "BF16"}
TORCH_DTYPES: dict[KvCacheDtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,  # these two are for the cache only
    "fp8_e5m2": torch.float8_e5m2,
}


class Weights:
    """The tensors of one checkpoint, by their Hugging Face names; all on the CPU."""

    def __init__(
        self,
        reader: WeightsReader,
        config: ModelConfig,
        dtype: Dtype,
        placement: Placement = CPU,
    ) -> None:
        self.placement = placement  # of the layers that these weights are for
        self._reader = reader
        quantization = reader.source.quantization
        self._sizes = projections(config)
        self.num_dequantized = 0  # quantised projections that no one grid of the kernels holds
        self._formats = {} if quantization is None else formats_of(quantization, self._sizes)
        self._keeps_grid = reader.source.keeps_grid
        self._config = config
        self._dtype = TORCH_DTYPES[dtype]

    def get(self, name: str) -> Tensor:
        """Return one tensor in the weights' type; a copy that shares nothing with the file.

        Raises:
            UnsupportedModelError: it holds numbers that the type doesn't.
        """
        raw = self._reader.read(name)
        values = _decode(raw)
        tensor = values.to(self._dtype)
        if raw.dtype in _WIDER_THAN_FLOAT16 and self._dtype == torch.float16:
            _check_range(name, values, tensor)
        self._reader.release(name)
        if raw.is_gguf_permuted:
            tensor = _undo_permutation(tensor, self._num_heads(name))
        return tensor

    def get_matrix(self, name: str) -> Tensor | Codes:
        """Return one weight [N, K]: on its own grid if it has one that is kept and multiplied."""
        matrix = self._read_matrix(name)
        if not isinstance(matrix, Codes) or can_multiply(matrix, self.placement):
            return matrix
        self.num_dequantized += 1
        return matrix.dequantize().to(self._dtype)

    def _read_matrix(self, name: str) -> Tensor | Codes:
        module = name.removesuffix(".weight")
        format = self._formats.get(module)
        if format is not None:
            return self._read_quantized(format, module)
        raw = self._reader.read(name)
        codes = codes_of(_bytes_of(raw), raw.dtype, raw.shape) if self._keeps_grid else None
        if codes is None:
            return self.get(name)
        self._reader.release(name)
        if raw.is_gguf_permuted:
            undo = partial(_undo_permutation, num_heads=self._num_heads(name))
            offsets = None if codes.offsets is None else undo(codes.offsets)
            codes = Codes(undo(codes.codes), undo(codes.scales), offsets, codes.group_size)
        return codes

    def get_side_by_side(self, names: list[str]) -> Tensor | Codes:
        """Return the weights of projections that are one product: on a grid if it holds them all.

        If only some of them are quantised, or not alike, all are plain, in fp32.
        """
        parts = [self.get_matrix(name) for name in names]
        whole = side_by_side(parts)
        if not isinstance(whole, Codes):
            self.num_dequantized += sum(isinstance(part, Codes) for part in parts)
        return whole

    def _read_quantized(self, format: StoredFormat, module: str) -> Tensor | Codes:
        suffixes = format.tensors(*self._sizes[module])
        names = {suffix: f"{module}.{suffix}" for suffix in suffixes}
        tensors = {
            suffix: _decode(self._reader.read(name))
            for suffix, name in names.items()
            if self._reader.find(name) is not None
        }
        for suffix in tensors:
            self._reader.release(names[suffix])
        try:
            matrix = load_matrix(format, tensors)
        except BadTensorError as exc:
            raise CorruptModelError(f"Tensor {names[exc.suffix]!r}: {exc}.") from exc
        shape = (matrix.codes if isinstance(matrix, Codes) else matrix).shape
        if shape != self._sizes[module]:
            raise CorruptModelError(
                f"{module} has shape {list(shape)}; config says {list(self._sizes[module])}."
            )
        if isinstance(matrix, Codes):
            return matrix
        self.num_dequantized += 1
        return matrix.to(self._dtype)

    def _num_heads(self, name: str) -> int:
        return self._config.num_heads if "q_proj" in name else self._config.num_kv_heads

    def get_if(self, wanted: bool, *names: str) -> Tensor | None:
        return torch.cat([self.get(name) for name in names]) if wanted else None


def _bytes_of(raw: RawTensor) -> Tensor:
    with warnings.catch_warnings():  # the map is read only, and so is what we do with it
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(raw.data, dtype=torch.uint8)


def _decode(raw: RawTensor) -> Tensor:
    flat = _bytes_of(raw)
    if raw.dtype in _PLAIN_TYPES:
        # A copy, since a tensor may start at an odd byte of the file and torch wants it aligned.
        values = flat.clone().view(_PLAIN_TYPES[raw.dtype])
    else:
        num_elements = 1
        for size in raw.shape:
            num_elements *= size
        values = dequantize(flat, raw.dtype, num_elements)
    return values.view(raw.shape)


def _check_range(name: str, values: Tensor, rounded: Tensor) -> None:
    """Raise `UnsupportedModelError` if float16 has no room for one of `values`."""
    if _is_finite(values) and not _is_finite(rounded):
        raise UnsupportedModelError(
            f"Tensor {name!r} holds numbers beyond float16's largest, 65504.",
            hint="Give --dtype bfloat16, which has the range of float32.",
        )


def _is_finite(values: Tensor) -> bool:
    lowest, highest = torch.aminmax(values)  # a NaN is both; no copy is made
    return bool(lowest.isfinite() and highest.isfinite())


def _undo_permutation(tensor: Tensor, num_heads: int) -> Tensor:
    """Turn interleaved rotary pairs, as GGUF stores them for `llama`, back into halves.

    `tensor` is [heads * D, ...] or, for a bias, [heads * D].
    """
    rows = tensor.shape[0]
    pairs = tensor.view(num_heads, rows // num_heads // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)
