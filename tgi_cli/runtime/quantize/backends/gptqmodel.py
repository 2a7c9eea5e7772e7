"""gptqmodel 7: GPTQ and AWQ. https://github.com/ModelCloud/GPTQModel (Apache-2.0)."""

from __future__ import annotations

import importlib
from typing import Any

from tgi_cli.runtime.quantize.backends.job import BackendJob


def quantize(job: BackendJob) -> None:
    """Quantise and save. Raises whatever the library raises."""
    import torch

    library: Any = importlib.import_module("gptqmodel")
    settings: dict[str, Any] = {
        "bits": job.bits,
        "group_size": job.group_size,
        "sym": job.symmetric,
    }
    if job.method == "awq":
        settings |= {"quant_method": "awq", "format": "gemm"}
    else:
        settings |= {"desc_act": job.desc_act, "damp_percent": job.damp, "format": "gptq"}
    is_awq = job.method == "awq"
    # 16-bit weights are many times slower on most CPUs, but its AWQ packs no others.
    dtype = torch.float16 if is_awq or job.device != "cpu" else torch.float32
    model = library.GPTQModel.load(
        job.source, library.QuantizeConfig(**settings), device=job.device, dtype=dtype
    )
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job.windows]
    # Left to itself it packs AWQ with a class that needs a GPU.
    backend = library.BACKEND.AWQ_TORCH if is_awq and job.device == "cpu" else library.BACKEND.AUTO
    model.quantize(rows, batch_size=1, backend=backend)
    model.save(job.into)
