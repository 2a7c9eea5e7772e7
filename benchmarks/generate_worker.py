"""transformers' own `generate` on one padded batch, in a process of its own.

Reads one JSON line per run on stdin ({"prompts": [...], "max_tokens": n}), answers one:
{"wall_s", "ttft_s", "num_tokens"}. The time to the first token is measured as a run of one token.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(folder: str, dtype: str, num_threads: str) -> None:
    torch.set_num_threads(int(num_threads))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def generate(prompts: list[str], max_tokens: int) -> tuple[float, int]:
        start = time.perf_counter()
        inputs = tokenizer(prompts, return_tensors="pt", add_special_tokens=False)
        output = model.generate(
            **inputs, max_new_tokens=max_tokens, min_new_tokens=max_tokens, do_sample=False
        )
        num_tokens = output[:, inputs["input_ids"].shape[1] :].numel()
        return time.perf_counter() - start, num_tokens

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        ttft_s, _ = generate(asked["prompts"], 1)
        wall_s, num_tokens = generate(asked["prompts"], asked["max_tokens"])
        answer = {"wall_s": wall_s, "ttft_s": ttft_s, "num_tokens": num_tokens}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
