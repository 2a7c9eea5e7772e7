"""`python -m tests.clients.lm_eval.reference` writes what transformers scores on the task.

For each choice of each question: the log-probability of its tokens after those of the question,
by the demo model in fp32 on the same dequantised weights, and whether greedy decoding says it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from tests.builders.reference import reference_model
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.text.tokenizer import Tokenizer

FOLDER = Path(__file__).parent


def score(model: LlamaForCausalLM, context: list[int], continuation: list[int]) -> list[object]:
    with torch.inference_mode():
        logits = model(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1]
    logprobs = logits.double().log_softmax(-1)  # [len(continuation), vocab]
    target = torch.tensor(continuation)
    total = logprobs.gather(1, target[:, None]).sum().item()
    return [round(total, 6), bool((logprobs.argmax(-1) == target).all())]


def main() -> None:
    located = locate_model("demo")
    model, tokenizer = reference_model(located), Tokenizer(located.text)
    scores = []
    for line in (FOLDER / "questions.jsonl").read_text().splitlines():
        row = json.loads(line)
        context = tokenizer.encode(row["question"], add_special_tokens=False)
        wholes = [
            tokenizer.encode(f"{row['question']} {choice}", add_special_tokens=False)
            for choice in row["choices"]
        ]
        scores.append([score(model, context, whole[len(context) :]) for whole in wholes])
    lines = ",\n".join("  " + json.dumps(each) for each in scores)
    (FOLDER / "transformers.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
