"""The sampler's watermark against the detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.builders.engine import VOCAB_SIZE, request
from tgi_cli.runtime.engine.sampling.sampler import Sampler, SamplerConfig
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.text.watermark import detect, green

NUM_TOKENS = 300


def generate(seed: int, *, watermark: bool, **config: float) -> list[int]:
    """Return what is sampled from random scores, after the last token of the prompt."""
    sampler = Sampler(SamplerConfig(VOCAB_SIZE, **config))  # type: ignore[arg-type]
    seq = Sequence(request(do_sample=True, seed=seed, watermark=watermark, max_new_tokens=999))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(NUM_TOKENS):
        [token] = sampler.sample(Scores.of(torch.randn(1, VOCAB_SIZE, generator=generator)), [seq])
        seq.token_ids.append(token.token_id)
    return seq.token_ids[-NUM_TOKENS - 1 :]


def test_watermarked_text_is_detected_and_plain_text_is_not_flagged():
    marked = [detect(generate(seed, watermark=True)) for seed in range(8)]
    plain = [detect(generate(seed, watermark=False)) for seed in range(40)]

    assert all(found.p_value < 1e-6 for found in marked)
    assert all(abs(found.z_score) < 4 for found in plain)


def test_another_gamma_is_detected_with_that_gamma():
    ids = generate(1, watermark=True, watermark_gamma=0.25, watermark_delta=3.0)

    assert detect(ids, gamma=0.25).p_value < 1e-9


@pytest.mark.parametrize("delta", [0.5, 2.0])
def test_green_scores_grow_by_delta_before_the_other_steps(delta):
    row = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(3))
    seq = Sequence(request(prompt_ids=[8, 31], watermark=True))
    sampler = Sampler(SamplerConfig(VOCAB_SIZE, watermark_delta=delta))

    [token] = sampler.sample(Scores.of(row[None]), [seq])

    is_green = torch.from_numpy(green(np.array([31]), np.arange(VOCAB_SIZE), 0.5))
    expected = row + delta * is_green
    assert token.token_id == int(expected.argmax())
    logprob = float(torch.log_softmax(expected.double(), -1).max())
    assert token.logprob == pytest.approx(logprob, abs=1e-5)
