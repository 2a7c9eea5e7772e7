"""AutoGPTQ 0.7, which its authors have given up. https://github.com/AutoGPTQ/AutoGPTQ (MIT)."""

from __future__ import annotations

import importlib
from typing import Any

from tgi_cli.runtime.quantize.backends.job import BackendJob


def quantize(job: BackendJob) -> None:
    """Quantise and save. Raises whatever the library raises."""
    import torch

    library: Any = importlib.import_module("auto_gptq")
    settings = library.BaseQuantizeConfig(
        bits=job.bits,
        group_size=job.group_size,
        sym=job.symmetric,
        desc_act=job.desc_act,
        damp_percent=job.damp,
    )
    model = library.AutoGPTQForCausalLM.from_pretrained(job.source, settings)
    model.to(job.device)
    rows = torch.tensor(job.windows)
    model.quantize(
        [{"input_ids": row[None], "attention_mask": torch.ones_like(row)[None]} for row in rows]
    )
    model.save_quantized(job.into, use_safetensors=True)
