"""AutoAWQ 0.2, which its authors have given up. https://github.com/casper-hansen/AutoAWQ (MIT)."""

from __future__ import annotations

import importlib
from typing import Any

from tgi_cli.runtime.quantize.backends.job import BackendJob


def quantize(job: BackendJob) -> None:
    """Quantise and save. Raises whatever the library raises."""
    library: Any = importlib.import_module("awq")
    transformers: Any = importlib.import_module("transformers")
    model = library.AutoAWQForCausalLM.from_pretrained(job.source, device_map=job.device)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.source)
    settings = {
        "w_bit": job.bits,
        "q_group_size": job.group_size,
        "zero_point": not job.symmetric,
        "version": "GEMM",
    }
    model.quantize(
        tokenizer,
        quant_config=settings,
        calib_data=job.windows,
        max_calib_samples=len(job.windows),
        max_calib_seq_len=len(job.windows[0]),
    )
    model.save_quantized(job.into)
