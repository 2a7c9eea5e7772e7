"""All steps from scores to a token at once, against a plain twin that takes them one by one.

The order is that of spec/http-api.md section 17; each step alone is in test_sampling.py.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tests.builders.engine import VOCAB_SIZE, request
from tgi_cli.runtime.engine.sampling.sampler import Sampler, SamplerConfig
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.text.watermark import green

PROMPT = [3, 3, 11, 60]
OUTPUT = [5, 5, 5, 8]
ALLOWED = frozenset(range(0, VOCAB_SIZE, 2)) | {5, 11}
ALL: dict[str, Any] = {
    "watermark": True,
    "repetition_penalty": 1.75,
    "frequency_penalty": 0.5,
    "temperature": 1.5,
    "top_k": 24,
    "top_p": 0.9375,
    "typical_p": 0.875,
}


def softmax(scores: dict[int, float]) -> dict[int, float]:
    highest = max(scores.values())
    weights = {i: math.exp(score - highest) for i, score in scores.items()}
    total = sum(weights.values())
    return {i: weight / total for i, weight in weights.items()}


def until_mass(ranked: list[int], probabilities: dict[int, float], mass: float) -> set[int]:
    """Return the fewest of `ranked`, from its first on, that have `mass` together."""
    kept: set[int] = set()
    for i in ranked:
        if sum(probabilities[each] for each in kept) >= mass:
            break
        kept.add(i)
    return kept


def logprobs_one_by_one(row: list[float], params: dict[str, Any]) -> dict[int, float]:
    scores = dict(enumerate(row))
    if params.get("watermark"):
        is_green = green(np.array(OUTPUT[-1:]), np.arange(VOCAB_SIZE), 0.5)
        scores = {i: score + 2.0 * bool(is_green[i]) for i, score in scores.items()}
    penalty = params.get("repetition_penalty", 1.0)
    for i in {*PROMPT, *OUTPUT}:
        scores[i] = scores[i] * penalty if scores[i] < 0 else scores[i] / penalty
    for i, count in Counter(OUTPUT).items():
        scores[i] -= params.get("frequency_penalty", 0.0) * count
    scores = {i: score / params.get("temperature", 1.0) for i, score in scores.items()}
    scores = {i: score for i, score in scores.items() if i in ALLOWED}
    if "top_k" in params:
        best = sorted(scores, key=lambda i: -scores[i])[: params["top_k"]]
        scores = {i: scores[i] for i in best}
    if "top_p" in params:
        probabilities = softmax(scores)
        kept = until_mass(sorted(scores, key=lambda i: -scores[i]), probabilities, params["top_p"])
        scores = {i: scores[i] for i in kept}
    if "typical_p" in params:
        probabilities = softmax(scores)
        entropy = -sum(p * math.log(p) for p in probabilities.values())
        ranked = sorted(scores, key=lambda i: abs(-math.log(probabilities[i]) - entropy))
        scores = {i: scores[i] for i in until_mass(ranked, probabilities, params["typical_p"])}
    return {i: math.log(p) for i, p in softmax(scores).items()}


@pytest.mark.parametrize("left_out", [None, *ALL])
@pytest.mark.parametrize("seed", range(3))
def test_all_steps_together_are_the_steps_one_by_one(left_out, seed):
    params = {name: value for name, value in ALL.items() if name != left_out}
    row = 3 * torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
    asked = request(prompt_ids=PROMPT, do_sample=True, seed=seed, **params)
    seq = Sequence(msgspec.structs.replace(asked, top_n_tokens=VOCAB_SIZE))
    seq.token_ids += OUTPUT
    words = [
        sum(1 << bit for bit in range(32) if 32 * word + bit in ALLOWED)
        for word in range(-(-VOCAB_SIZE // 32))
    ]
    bitmask = torch.tensor(words, dtype=torch.int64).to(torch.int32)

    [token] = Sampler(SamplerConfig(VOCAB_SIZE)).sample(Scores.of(row[None]), [seq], [bitmask])

    expected = logprobs_one_by_one(row.tolist(), params)
    told = {score.id: score.logprob for score in token.top}
    assert told.keys() == expected.keys()
    assert told == pytest.approx(expected, abs=1e-4)
    assert token.logprob == pytest.approx(expected[token.token_id], abs=1e-4)
