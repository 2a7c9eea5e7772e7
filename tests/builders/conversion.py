"""Checkpoints in the forms that are converted, and a conversion in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tgi_cli.runtime.hub.convert.messages import Converted, Job, Progress
from tgi_cli.runtime.hub.convert.plan import Plan, execute
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile

Q = "model.layers.0.self_attn.q_proj"
LORA_RANK = 3
PLAIN_LORA = {  # as peft 0.17 writes it, with what it leaves at its defaults
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "org/base",
    "r": LORA_RANK,
    "lora_alpha": 8,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "down_proj"],
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "use_rslora": False,
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "loftq_config": {},
    "megatron_core": "megatron.core",
    "peft_version": "0.17.1",
}


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


def factors(weight: str = Q, num_in: int = 64, num_out: int = 64) -> dict[str, Tensor]:
    torch.manual_seed(11)
    return {
        f"base_model.model.{weight}.lora_A.weight": torch.randn(LORA_RANK, num_in),
        f"base_model.model.{weight}.lora_B.weight": torch.randn(num_out, LORA_RANK),
    }


def write_adapter(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN_LORA | changes))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
