"""LoRA adapters for the tiny checkpoints, as the peft library writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

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
