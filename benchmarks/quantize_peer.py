"""Quantise a model by a library, in the library's own environment: nothing of ours is imported.

A job as JSON on the standard input; a line `solved in S` says how many seconds the solver took.
llmcompressor pins memory even where there is no GPU to pin it for, so that call does nothing here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def gptqmodel(job: dict[str, Any]) -> float:
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    torch.set_num_threads(job["num_threads"])
    settings = QuantizeConfig(bits=4, group_size=job["group_size"], sym=True)
    # Left to itself it computes in 16 bits, which most CPUs do many times more slowly.
    model = GPTQModel.load(job["source"], settings, dtype=torch.float32, device="cpu")
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["windows"]]
    began = time.perf_counter()
    model.quantize(rows, batch_size=1)
    took_s = time.perf_counter() - began
    model.save(job["into"])
    return took_s


def llmcompressor(job: dict[str, Any]) -> float:
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.awq import AWQModifier
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job["num_threads"])
    if not torch.cuda.is_available():
        torch.Tensor.pin_memory = lambda self, *_, **__: self
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": False,
        "strategy": "group",
        "group_size": job["group_size"],
    }
    recipe = AWQModifier(
        ignore=["lm_head"],
        config_groups={"group_0": {"targets": ["Linear"], "weights": weights}},
    )
    model = AutoModelForCausalLM.from_pretrained(job["source"], dtype=torch.float32)
    windows = job["windows"]
    masks = [[1] * len(ids) for ids in windows]
    began = time.perf_counter()
    oneshot(
        model=model,
        dataset=Dataset.from_dict({"input_ids": windows, "attention_mask": masks}),
        recipe=recipe,
        max_seq_length=len(windows[0]),
        num_calibration_samples=len(windows),
    )
    took_s = time.perf_counter() - began
    model.save_pretrained(job["into"], save_compressed=True)
    return took_s


def main() -> None:
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # on two cores it asks for two and is given one
    job = json.load(sys.stdin)
    print(f"\nsolved in {_PEERS[job['peer']](job)}", flush=True)


_PEERS = {"gptqmodel": gptqmodel, "llmcompressor": llmcompressor}

if __name__ == "__main__":
    main()
