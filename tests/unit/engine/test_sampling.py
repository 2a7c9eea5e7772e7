from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import VOCAB_SIZE, request
from tgi_cli.runtime.engine.sampling import logits as steps
from tgi_cli.runtime.engine.sampling.sampler import Sampler
from tgi_cli.runtime.engine.sequence import Sequence


def whole(*scores: float) -> steps.Candidates:
    return steps.Candidates(torch.tensor(scores), ids=None)


def kept_ids(candidates: steps.Candidates) -> list[int]:
    if candidates.ids is None:
        return list(range(candidates.logits.numel()))
    return candidates.ids.tolist()


def sample(row: torch.Tensor, **sampling: object) -> tuple[int, float]:
    seq = Sequence(request(**sampling))
    [token] = Sampler(row.numel()).sample(row[None], [seq])
    return token.token_id, token.logprob


def test_top_k_keeps_all_that_tie_with_the_last():
    assert kept_ids(steps.top_k(whole(1.0, 3.0, 2.0, 2.0, 0.0), 2)) == [1, 2, 3]


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    candidates = whole(*[math.log(x) for x in (0.1, 0.4, 0.2, 0.3)])

    assert kept_ids(steps.top_p(candidates, 0.69)) == [1, 3]
    assert kept_ids(steps.top_p(candidates, 0.71)) == [1, 2, 3]
    assert kept_ids(steps.top_p(candidates, 0.01)) == [1]


def test_top_p_of_a_flat_row_wider_than_the_partial_sort_equals_the_full_sort():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(5003, generator=generator) * 0.01

    kept = steps.top_p(steps.Candidates(logits, None), 0.9)

    probabilities, order = torch.softmax(logits.double(), -1).sort(descending=True)
    count = int((probabilities.cumsum(-1) < 0.9).sum()) + 1
    assert kept_ids(kept) == sorted(order[:count].tolist())


def test_typical_keeps_what_is_nearest_to_the_entropy_and_not_the_likeliest():
    candidates = whole(*[math.log(x) for x in (0.7, 0.1, 0.1, 0.1)])  # entropy 0.94

    assert kept_ids(steps.typical_p(candidates, 0.1)) == [0]
    candidates = whole(*[math.log(x) for x in (0.5, 0.2, 0.2, 0.1)])  # entropy 1.22
    assert kept_ids(steps.typical_p(candidates, 0.2)) == [1, 2]


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40),
    top_k=st.integers(1, 45),
    top_p=st.floats(0.01, 0.99),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_a_picked_token_is_a_candidate_with_its_own_probability(scores, top_k, top_p, uniform):
    kept = steps.top_p(steps.top_k(whole(*scores), top_k), top_p)

    token_id, logprob = steps.pick(kept, uniform)

    assert token_id in kept_ids(kept)
    logprobs = torch.log_softmax(kept.logits.double(), -1)
    assert logprob == pytest.approx(float(logprobs[kept_ids(kept).index(token_id)]), abs=1e-9)


def test_draws_follow_the_distribution():
    row = torch.full((VOCAB_SIZE,), -20.0)
    row[10], row[20], row[30] = math.log(0.5), math.log(0.3), math.log(0.2)

    drawn = [sample(row, do_sample=True, seed=seed)[0] for seed in range(3000)]

    for token_id, share in ((10, 0.5), (20, 0.3), (30, 0.2)):
        assert abs(drawn.count(token_id) / 3000 - share) < 0.03


def test_the_token_depends_on_seed_and_position_but_not_on_the_neighbours():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, VOCAB_SIZE, generator=generator)
    params = {"do_sample": True, "top_p": 0.9, "temperature": 0.8}
    sequences = [Sequence(request(i, num_tokens=4 + i, seed=i, **params)) for i in range(6)]
    sampler = Sampler(VOCAB_SIZE)

    together = sampler.sample(logits, sequences)
    alone = [sampler.sample(logits[i : i + 1], [sequences[i]])[0] for i in range(6)]

    assert together == alone


def test_repetition_penalty_counts_prompt_and_output_once():
    row = torch.zeros(VOCAB_SIZE)
    row[3], row[5], row[6] = 4.0, 3.9, -1.0
    seq = Sequence(request(prompt_ids=[3, 3, 6], repetition_penalty=2.0))
    seq.token_ids += [3]

    [token] = Sampler(VOCAB_SIZE).sample(row[None], [seq])

    expected = row.clone()
    expected[3], expected[6] = 2.0, -2.0
    assert token.token_id == 5
    assert token.logprob == pytest.approx(float(torch.log_softmax(expected, -1)[5]), abs=1e-6)


def test_frequency_penalty_counts_the_output_only_and_every_time():
    row = torch.zeros(VOCAB_SIZE)
    row[3], row[5], row[7] = 4.0, 3.0, 2.6
    seq = Sequence(request(prompt_ids=[5, 5, 5], frequency_penalty=0.8))
    sampler = Sampler(VOCAB_SIZE)

    picked = []
    for _ in range(4):
        [token] = sampler.sample(row[None], [seq])
        seq.token_ids.append(token.token_id)
        picked.append(token.token_id)

    assert picked == [3, 3, 5, 7]


@pytest.mark.parametrize(
    "extreme",
    [{"temperature": 1e-38, "do_sample": True}, {"repetition_penalty": 1e-38}],
)
def test_extreme_parameters_still_give_a_token(extreme):
    row = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(3)) * 20

    token_id, logprob = sample(row, prompt_ids=[int(row.argmax())], **extreme)

    assert token_id == int(row.argmax())
    assert logprob == pytest.approx(0.0, abs=1e-3)


def test_greedy_gives_the_log_softmax_of_the_best():
    row = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(3))

    token_id, logprob = sample(row)

    assert token_id == int(row.argmax())
    assert logprob == pytest.approx(float(torch.log_softmax(row, -1).max()), abs=1e-6)


@pytest.mark.parametrize("params", [{}, {"do_sample": True}, {"repetition_penalty": 1.2}])
def test_a_row_that_is_not_finite_is_reported_and_not_sampled(params):
    row = torch.zeros(VOCAB_SIZE)
    row[4] = float("nan")

    _, logprob = sample(row, **params)

    assert math.isnan(logprob)
