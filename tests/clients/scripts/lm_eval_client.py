"""`lm-eval`'s `local-completions`: scores and texts of a small task, as transformers gives them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import lm_eval
import requests
import yaml
from harness import Servers, main
from lm_eval.models.openai_completions import LocalCompletionsAPI

FOLDER = Path(__file__).parent.parent / "lm_eval"
EXPECTED = json.loads((FOLDER / "transformers.json").read_text())
TOLERANCE = 1e-3


def evaluate(servers: Servers, task: str, **options: Any) -> list[dict[str, Any]]:
    """Return the task's samples in the order of its questions."""
    config = yaml.safe_load((FOLDER / f"{task}.yaml").read_text())
    config["dataset_kwargs"] = {"data_files": {"test": str(FOLDER / "questions.jsonl")}}
    model = LocalCompletionsAPI(
        base_url=f"{servers.demo}/v1/completions",
        model="demo",
        tokenizer=servers.tokenizer,
        tokenizer_backend="huggingface",
        max_retries=1,
        **options,
    )
    results = lm_eval.simple_evaluate(model, tasks=[config], log_samples=True, bootstrap_iters=0)
    [samples] = results["samples"].values()
    return sorted(samples, key=lambda sample: sample["doc_id"])


def check_scores(samples: list[dict[str, Any]]) -> None:
    assert len(samples) == len(EXPECTED)
    for sample, expected in zip(samples, EXPECTED, strict=True):
        assert len(sample["filtered_resps"]) == len(expected)
        for (score, is_greedy), (wanted, wanted_greedy) in zip(
            sample["filtered_resps"], expected, strict=True
        ):
            print(f"{sample['doc_id']}: {float(score):.6f}, transformers {wanted:.6f}")
            assert abs(float(score) - wanted) <= TOLERANCE * max(1.0, abs(wanted))
            assert bool(is_greedy) == wanted_greedy


def scores_token_ids(servers: Servers) -> None:
    check_scores(evaluate(servers, "multiple_choice"))


def scores_batches(servers: Servers) -> None:
    check_scores(evaluate(servers, "multiple_choice", batch_size=3))


def scores_texts_several_at_once(servers: Servers) -> None:
    options = {"tokenized_requests": False, "num_concurrent": 3}
    check_scores(evaluate(servers, "multiple_choice", **options))


def generates(servers: Servers) -> None:
    samples = evaluate(servers, "generation")

    for sample in samples:
        body = {
            "prompt": sample["doc"]["question"],
            "max_tokens": 8,
            "temperature": 0,
            "stop": ["\n"],
        }
        reply = requests.post(f"{servers.demo}/v1/completions", json=body, timeout=60).json()
        [[text]] = sample["resps"]
        assert text == reply["choices"][0]["text"]


if __name__ == "__main__":
    main(scores_token_ids, scores_batches, scores_texts_several_at_once, generates)
