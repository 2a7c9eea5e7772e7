"""Echoed log-probabilities of `/v1/completions`, over the wire, against transformers in fp32."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.builders.reference import reference_model
from tests.builders.served import served
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.text.tokenizer import Tokenizer

TEXTS = [
    "The capital of France is Paris, and that of Italy is Rome.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "昔々、あるところに、おじいさんと🦜がいました。",
    "Once upon a time there was a lighthouse keeper who counted ships. " * 23,
]
NUM_TOP = 3


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # As transformers': keys and values aren't rounded.
    with served("--model-id", "demo", "--kv-cache-dtype", "float32") as server:
        yield server.wait_ready()


def complete(url: str, **body: Any) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{url}/v1/completions",
        json.dumps({"temperature": 0, **body}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=90) as response:
        return json.load(response)["choices"]


@pytest.mark.timeout(600)
def test_echoed_scores_equal_transformers(url):
    located = locate_model("demo")
    tokenizer, reference = Tokenizer(located.text), reference_model(located)
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]

    choices = complete(url, prompt=prompts, max_tokens=0, echo=True, logprobs=NUM_TOP)

    assert [choice["text"] for choice in choices] == TEXTS
    for choice, ids in zip(choices, prompts, strict=True):
        with torch.inference_mode():
            logits = reference(torch.tensor([ids])).logits[0, :-1]
        expected = logits.double().log_softmax(-1)  # [len(ids) - 1, vocab]
        own = expected.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        told = choice["logprobs"]
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        assert told["token_logprobs"][1:] == pytest.approx(own.tolist(), rel=1e-3, abs=1e-3)
        best = [max(top.values()) for top in told["top_logprobs"][1:]]
        assert best == pytest.approx(expected.max(-1).values.tolist(), rel=1e-3, abs=1e-3)


def test_scores_are_the_same_bytes_alone_and_together(url):
    tokenizer = Tokenizer(locate_model("demo").text)
    prompts = [tokenizer.encode(text, add_special_tokens=False)[:77] for text in TEXTS]
    body = {"max_tokens": 3, "echo": True, "logprobs": NUM_TOP}

    together = complete(url, prompt=prompts, **body)
    alone = [complete(url, prompt=ids, **body)[0] for ids in prompts]

    assert [choice["logprobs"] for choice in together] == [choice["logprobs"] for choice in alone]


def test_greedy_tokens_are_the_best_of_their_prompts_scores(url):
    """What `lm-eval` takes for greedy: a token's own score is the best one's, to the last bit."""
    [generated] = complete(url, prompt=TEXTS[0], max_tokens=9, logprobs=1)

    whole = TEXTS[0] + generated["text"]
    [echoed] = complete(url, prompt=whole, max_tokens=0, echo=True, logprobs=1)

    scores, tops = echoed["logprobs"]["token_logprobs"], echoed["logprobs"]["top_logprobs"]
    for score, top in list(zip(scores, tops, strict=True))[-9:]:
        assert score == max(top.values())
