"""The plan for a LoRA adapter merged into its base: W + scale * B A, in the base's types.

    scale = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora

Hu et al., LoRA, arXiv:2106.09685; Kalajdzievski, rank-stabilised LoRA, arXiv:2312.03732. Only this
is done: whatever else the peft library can store under the same file names is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tgi_cli.errors import ConversionError, TgiError
from tgi_cli.runtime.hub.convert.dtypes import SAFETENSORS_DTYPES, cast
from tgi_cli.runtime.hub.convert.messages import Job
from tgi_cli.runtime.hub.convert.model_files import copy_small_files, copy_tokenizer
from tgi_cli.runtime.hub.convert.pickles import PickleFile
from tgi_cli.runtime.hub.convert.places import ADAPTER_CONFIG
from tgi_cli.runtime.hub.convert.plan import Plan
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.hub.locate import safetensors_files
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile
from tgi_cli.runtime.hub.safetensors_writer import TensorSpec, plan_shards

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TORCH_DTYPES = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}
_SUMMABLE = {"F64", "F32", "F16", "BF16"}
_FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")

# Keys of adapter_config.json that don't change what a merge has to do.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}
# Keys that may stand there with these values, which say that a feature isn't used.
_PLAIN_VALUES = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian")}


class LoraSource:
    """The base's tensors, with the adapter's product added to those that it changes."""

    def __init__(
        self,
        base: Mapping[str, SafetensorsFile],
        factors: Mapping[str, tuple[Tensor, Tensor]],  # by weight: A [r, in], B [out, r]
        scale: float,
    ) -> None:
        self._base = base
        self._factors = factors
        self._scale = scale

    def read(self, name: str) -> Tensor:
        file = self._base[name]
        info = file.tensors[name]
        dtype = _TORCH_DTYPES[info.dtype]
        # A copy: the map is read only, and a tensor may start at an odd byte.
        raw = torch.frombuffer(bytearray(file.read(name)), dtype=torch.uint8)
        weight = raw.view(dtype).view(info.shape)
        if name not in self._factors:
            return weight
        a, b = (factor.float() for factor in self._factors[name])
        return cast(name, weight.float() + (b @ a) * self._scale, dtype)

    def release(self, name: str) -> None:
        self._base[name].release(name)


def plan_lora(job: Job) -> Plan:
    """Raises `ConversionError`: not plain LoRA, or not for this base."""
    assert job.base is not None
    adapter, base = Path(job.source), Path(job.base)
    try:
        scale, rank = _read_config(adapter)
        files = [SafetensorsFile(path) for path in safetensors_files(base.name, base)]
    except TgiError as exc:
        raise ConversionError(exc.message, hint=exc.hint) from exc
    places = {name: file for file in files for name in file.tensors}
    path = _weights_file(adapter)
    factors = _pair_up(path, _tensors_of(path), places, rank)
    specs = [
        TensorSpec(name, file.tensors[name].dtype, file.tensors[name].shape)
        for name, file in places.items()
    ]

    def write_small_files(into: Path) -> None:
        copy_small_files(base, into)
        copy_tokenizer(adapter, into)

    return Plan(
        source=LoraSource(places, factors, scale),
        shards=plan_shards(specs, job.shard_size_bytes),
        source_files=[adapter / ADAPTER_CONFIG, path],
        base_files=[file.path for file in files],
        write_small_files=write_small_files,
        notes=[f"{len(factors)} of {len(specs)} tensors were changed by the adapter."],
    )


def _read_config(adapter: Path) -> tuple[float, int]:
    """Return the factor before the product, and the rank."""
    config = read_json(adapter / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise _not_plain(f"peft_type is {str(config.get('peft_type'))[:40]!r}")
    for key, value in config.items():
        is_plain = key in _HARMLESS or not value or value in _PLAIN_VALUES.get(key, ())
        if not is_plain:
            raise _not_plain(f"it uses {key[:60]!r}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= 1 << 16:
        raise ConversionError(f"{ADAPTER_CONFIG}: 'r' must be a positive integer.")
    if type(alpha) not in (int, float) or not math.isfinite(alpha):  # type: ignore[arg-type]
        raise ConversionError(f"{ADAPTER_CONFIG}: 'lora_alpha' must be a number.")
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return float(alpha) / divisor, rank  # type: ignore[arg-type]


def _not_plain(reason: str) -> ConversionError:
    return ConversionError(
        f"{ADAPTER_CONFIG}: the adapter isn't plain LoRA: {reason}.",
        hint="Merge it with the library that made it.",
    )


def _weights_file(adapter: Path) -> Path:
    for name in _WEIGHTS:
        if (adapter / name).exists():
            return adapter / name
    raise ConversionError(f"{adapter.name}: no {_WEIGHTS[0]}, and no {_WEIGHTS[1]}.")


def _tensors_of(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".bin":
        return PickleFile(path).tensors
    try:
        file = SafetensorsFile(path)
    except TgiError as exc:
        raise ConversionError(exc.message, hint=exc.hint) from exc
    return {
        name: torch.frombuffer(bytearray(file.read(name)), dtype=torch.uint8)
        .view(_TORCH_DTYPES[info.dtype])
        .view(info.shape)
        for name, info in file.tensors.items()
    }


def _pair_up(
    path: Path, tensors: Mapping[str, Tensor], base: Mapping[str, SafetensorsFile], rank: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B of each weight that the adapter changes, their shapes checked."""
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            raise _not_plain(f"it holds a tensor {name[:120]!r}")
        sides.setdefault(f"{match.group(1)}.weight", {})[match.group(2)] = tensor
    if not sides:
        raise ConversionError(f"{path.name}: there is no tensor in it.")
    for weight, pair in sides.items():
        if weight not in base:
            raise ConversionError(f"{path.name}: the base model has no tensor {weight[:120]!r}.")
        if pair.keys() != {"A", "B"}:
            missing = "B" if "A" in pair else "A"
            raise ConversionError(f"{path.name}: {weight[:120]!r} has no lora_{missing}.")
        info = base[weight].tensors[weight]
        if info.dtype not in _SUMMABLE:
            raise ConversionError(
                f"{weight[:120]!r} of the base model is of type {info.dtype}: quantised.",
                hint="Merge into the model's original, and quantise the result.",
            )
        shape = info.shape
        expected = ((rank, shape[-1]), (shape[0], rank))
        found = (tuple(pair["A"].shape), tuple(pair["B"].shape))
        if len(shape) != 2 or found != expected:
            raise ConversionError(
                f"{path.name}: A and B of {weight[:120]!r} are {found[0]} and {found[1]}, which "
                f"don't fit rank {rank} and a weight of {shape}.",
                hint="Is this the base model that the adapter was trained on?",
            )
    return {weight: (pair["A"], pair["B"]) for weight, pair in sides.items()}
