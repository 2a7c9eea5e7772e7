"""Checkpoints in the forms that are converted, and a conversion in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tgi_cli.runtime.hub.convert.messages import Converted, Job, Progress
from tgi_cli.runtime.hub.convert.plan import Plan, execute
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile


def convert_here(
    make_plan: Callable[[Job], Plan], source: Path, into: Path, **fields: Any
) -> tuple[Converted, list[Progress]]:
    """Do in this process what the converting process does; return the result and its progress."""
    into.mkdir()
    fields = {"kind": "pickle", "shard_size_bytes": 10**9} | fields
    job = Job(source=str(source), into=str(into), **fields)
    progress: list[Progress] = []
    return execute(make_plan(job), job, progress.append), progress


def save_pickle(path: Path, tensors: dict[str, Any], *, is_old: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path, _use_new_zipfile_serialization=not is_old)


def write_config(folder: Path, **changes: Any) -> None:
    """Write the configuration of a Llama with one layer of the smallest size."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 5,
        "hidden_size": 4,
        "intermediate_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "torch_dtype": "float32",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | changes))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a folder of safetensors, as our reader finds it."""
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
    kinds |= {"BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8, "BOOL": torch.bool}
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        file = SafetensorsFile(path)
        for name, info in file.tensors.items():
            raw = bytearray(file.read(name))
            flat = torch.frombuffer(raw, dtype=kinds[info.dtype]) if raw else torch.empty(0)
            tensors[name] = flat.to(kinds[info.dtype]).view(info.shape)
    return tensors
