"""Tiny quantised checkpoints, each with its plain twin: the same numbers in fp32."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.packers import (
    RandomGrid,
    pack_awq,
    pack_compressed,
    pack_gptq,
    pack_marlin,
    random_grid,
)

GROUP = 64
_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
}
Pack = Callable[[RandomGrid], dict[str, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """How to quantise every projection, and what config.json says of it."""

    config: dict[str, Any]
    pack: Pack
    grid: dict[str, Any] = dataclasses.field(default_factory=dict)
    order: str = ""  # "one": groups are scattered, alike in all; "many": not alike; "uneven": sizes
    group_size: int | None = GROUP


def gptq(bits: int = 4, *, version: int = 1, order: str = "", **changes: Any) -> Recipe:
    is_symmetric = changes.get("sym", True)
    group_size = changes.get("group_size", GROUP)
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "desc_act": bool(order),
        "sym": is_symmetric,
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
        **changes,
    }
    grid = {"bits": bits, "is_symmetric": is_symmetric, "lowest_zero": int(version == 1)}
    size = None if group_size == -1 else group_size
    return Recipe(config, lambda g: pack_gptq(g, bits, version=version), grid, order, size)


def compressed(bits: int, *, is_symmetric: bool, strategy: str = "group") -> Recipe:
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": is_symmetric,
        "strategy": strategy,
        "group_size": GROUP if strategy == "group" else None,
        "dynamic": False,
        "actorder": None,
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    config = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": "pack-quantized",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    return Recipe(
        config,
        lambda g: pack_compressed(g, bits, is_symmetric=is_symmetric),
        {"bits": bits, "is_symmetric": is_symmetric, "dtype": torch.bfloat16},
        group_size=GROUP if strategy == "group" else None,
    )


AWQ = Recipe(
    {
        "quant_method": "awq",
        "version": "gemm",
        "bits": 4,
        "group_size": GROUP,
        "zero_point": True,
        "modules_to_not_convert": ["lm_head"],
    },
    pack_awq,
)
MARLIN = Recipe(
    {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "checkpoint_format": "marlin"},
    pack_marlin,
    {"is_symmetric": True},
)


def write_quantized(
    folder: Path,
    recipe: Recipe,
    *,
    quantized: tuple[str, ...] = ("_proj",),
    plain_parts: tuple[str, ...] = (),
    others: Mapping[str, Recipe] | None = None,
    **model: Any,
) -> tuple[Path, Path]:
    """Write both checkpoints; return their folders.

    Modules whose names end with one of `quantized` are converted, unless one of `plain_parts` is in
    their names; by one of `others` if its key is in their names.
    """
    packed_folder, plain_folder = folder / "packed", folder / "plain"
    write_tiny_checkpoint(plain_folder, **{**_SIZES, **model})
    shutil.copytree(plain_folder, packed_folder)
    plain = load_file(plain_folder / "model.safetensors")
    packed = dict(plain)
    for seed, name in enumerate(sorted(plain)):
        module = name.removesuffix(".weight")
        if not module.endswith(quantized) or any(part in module for part in plain_parts):
            continue
        num_out, num_in = plain[name].shape
        fitting = (other for part, other in (others or {}).items() if part in module)
        own = next(fitting, recipe)
        grid = random_grid(num_out, num_in, own.group_size, seed=seed, **own.grid)
        if own.order == "uneven":
            merged = torch.where(grid.groups == 1, 0, grid.groups)
            grid = dataclasses.replace(grid, groups=merged)
        elif own.order:
            generator = torch.Generator().manual_seed(seed if own.order == "many" else 1)
            order = torch.randperm(num_in, generator=generator)
            grid = dataclasses.replace(grid, groups=grid.groups[order])
        plain[name] = grid.weights()
        del packed[name]
        packed |= {f"{module}.{suffix}": t for suffix, t in own.pack(grid).items()}
    save_file(plain, plain_folder / "model.safetensors")
    save_file(packed, packed_folder / "model.safetensors")
    change_config(packed_folder, quantization_config=recipe.config)
    return packed_folder, plain_folder


def split_in_two(folder: Path) -> None:
    """Put every other tensor into a second file, so that no projection is whole in one."""
    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    places: dict[str, str] = {}
    for index in range(2):
        file = f"model-{index + 1:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names[index::2]}, folder / file)
        places |= dict.fromkeys(names[index::2], file)
    listing = json.dumps({"metadata": {}, "weight_map": places})
    (folder / "model.safetensors.index.json").write_text(listing)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
