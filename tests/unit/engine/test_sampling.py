from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import VOCAB_SIZE, request
from tgi_cli.runtime.engine.sampling import logits as steps
from tgi_cli.runtime.engine.sampling.sampler import SampledToken, Sampler, SamplerConfig
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.layers.head import Scores


def whole(*scores: float) -> steps.Candidates:
    return steps.Candidates(torch.tensor(scores), ids=None)


def kept_ids(candidates: steps.Candidates) -> list[int]:
    if candidates.ids is None:
        return list(range(candidates.logits.numel()))
    return candidates.ids.tolist()


def sample(row: torch.Tensor, **sampling: object) -> tuple[int, float]:
    token = sample_row(row, Sequence(request(**sampling)))
    return token.token_id, token.logprob


def sample_row(
    row: torch.Tensor, seq: Sequence, bitmask: torch.Tensor | None = None, **config: Any
) -> SampledToken:
    sampler = Sampler(SamplerConfig(row.numel(), **config))
    return sampler.sample(Scores.of(row[None]), [seq], [bitmask])[0]


def random_row(seed: int = 3) -> torch.Tensor:
    return torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))


def bitmask_of(ids: set[int]) -> torch.Tensor:
    words = [
        sum(1 << bit for bit in range(32) if 32 * word + bit in ids)
        for word in range(-(-VOCAB_SIZE // 32))
    ]
    return torch.tensor(words, dtype=torch.int64).to(torch.int32)


def test_top_k_keeps_all_that_tie_with_the_last():
    assert kept_ids(steps.top_k(whole(1.0, 3.0, 2.0, 2.0, 0.0), 2)) == [1, 2, 3]


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    candidates = whole(*[math.log(x) for x in (0.1, 0.4, 0.2, 0.3)])

    assert kept_ids(steps.top_p(candidates, 0.69)) == [1, 3]
    assert kept_ids(steps.top_p(candidates, 0.71)) == [1, 2, 3]
    assert kept_ids(steps.top_p(candidates, 0.01)) == [1]


SCORES = st.lists(st.floats(-40, 40, width=32) | st.just(-math.inf), min_size=1, max_size=60)


def slow_kept(keys: torch.Tensor, probabilities: torch.Tensor, p: float) -> tuple[set, set]:
    """Sort all by key; return who must be kept, and who may be, at a mass of about `p`."""
    keys, order = keys.sort(stable=True)
    before = probabilities[order].cumsum(-1) - probabilities[order]
    last = [keys[(before < mass).sum() - 1] for mass in (p - 1e-9, p + 1e-9)]
    must, may = (set(order[keys <= key].tolist()) for key in last)
    return must, may


@settings(max_examples=150, deadline=None)
@given(scores=SCORES.filter(lambda s: max(s) > -math.inf), p=st.floats(0.001, 0.999))
def test_cuts_by_mass_equal_a_sort_of_everything(scores, p):
    logprobs = torch.log_softmax(torch.tensor(scores).double(), -1)
    probabilities = logprobs.exp()
    distance = (-logprobs + (probabilities * logprobs).nan_to_num(0.0).sum()).abs()

    kept = {
        "top_p": (steps.top_p(whole(*scores), p), -logprobs),
        "typical_p": (steps.typical_p(whole(*scores), p), distance),
    }

    for name, (candidates, keys) in kept.items():
        must, may = slow_kept(keys, probabilities, p)
        assert must <= set(kept_ids(candidates)) <= may, name


def test_top_p_of_a_wide_flat_row_equals_the_full_sort():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(5003, generator=generator) * 0.01

    kept = steps.top_p(steps.Candidates(logits, None), 0.9)

    probabilities, order = torch.softmax(logits.double(), -1).sort(descending=True)
    count = int((probabilities.cumsum(-1) < 0.9).sum()) + 1
    assert kept_ids(kept) == sorted(order[:count].tolist())


def test_typical_of_a_wide_flat_row_equals_the_full_sort():
    logits = torch.randn(5003, generator=torch.Generator().manual_seed(5)) * 0.01

    kept = steps.typical_p(steps.Candidates(logits, None), 0.9)

    logprobs = torch.log_softmax(logits.double(), -1)
    distance = (-logprobs + (logprobs.exp() * logprobs).sum()).abs()
    order = distance.sort().indices
    count = int((logprobs.exp()[order].cumsum(-1) < 0.9).sum()) + 1
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

    picked = steps.pick(kept, uniform)

    assert picked.token_id in kept_ids(kept)
    logprobs = torch.log_softmax(kept.logits.double(), -1)
    expected = float(logprobs[kept_ids(kept).index(picked.token_id)])
    assert picked.logprob == pytest.approx(expected, abs=1e-9)
    assert picked.best_logprob == pytest.approx(float(logprobs.max()), abs=1e-9)


def test_draws_follow_the_distribution():
    row = torch.full((VOCAB_SIZE,), -20.0)
    row[10], row[20], row[30] = math.log(0.5), math.log(0.3), math.log(0.2)

    drawn = [sample(row, do_sample=True, seed=seed)[0] for seed in range(3000)]

    for token_id, share in ((10, 0.5), (20, 0.3), (30, 0.2)):
        assert abs(drawn.count(token_id) / 3000 - share) < 0.03


@settings(max_examples=150, deadline=None)
@given(
    row=st.lists(st.floats(-60, 60, width=32), min_size=VOCAB_SIZE, max_size=VOCAB_SIZE),
    params=st.fixed_dictionaries(
        {
            "do_sample": st.booleans(),
            "temperature": st.floats(1e-9, 1e9),
            "top_k": st.integers(0, 200),
            "top_p": st.floats(1e-9, 1.0),
            "typical_p": st.floats(1e-9, 1.0),
            "min_p": st.floats(0, 1),
            "repetition_penalty": st.floats(1e-9, 1e9),
            "frequency_penalty": st.floats(-2, 2),
            "presence_penalty": st.floats(-2, 2),
            "logit_bias": st.dictionaries(st.integers(0, VOCAB_SIZE - 1), st.floats(-100, 100)),
            "min_tokens": st.integers(0, 3),
            "watermark": st.booleans(),
            "seed": st.integers(0, 2**64 - 1),
        }
    ),
    allowed=st.none() | st.sets(st.integers(0, VOCAB_SIZE - 1), min_size=1),
)
def test_whatever_is_asked_a_token_that_may_be_chosen_comes_out(row, params, allowed):
    seq = Sequence(request(prompt_ids=[1, 2, 2], output_ids=[4, 4], max_new_tokens=9, **params))
    seq.top_n_tokens = 2
    bitmask = None if allowed is None else bitmask_of(allowed)

    token = sample_row(torch.tensor(row), seq, bitmask, eos_token_ids=(3, 4))

    assert math.isfinite(token.logprob)
    assert token.logprob <= 1e-6
    assert token.top[0].logprob >= token.logprob
    reported = {score.id for score in token.top} | {token.token_id}
    assert reported <= (set(range(VOCAB_SIZE)) if allowed is None else allowed)
    if params["min_tokens"] == 3 and (allowed is None or allowed - {3, 4}):
        assert not reported & {3, 4}


def test_the_token_depends_on_seed_and_position_but_not_on_the_neighbours():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, VOCAB_SIZE, generator=generator)
    params = {"do_sample": True, "top_p": 0.9, "temperature": 0.8}
    sequences = [Sequence(request(i, num_tokens=4 + i, seed=i, **params)) for i in range(6)]
    sampler = Sampler(SamplerConfig(VOCAB_SIZE))

    together = sampler.sample(Scores.of(logits), sequences)
    alone = [sampler.sample(Scores.of(logits[i : i + 1]), [sequences[i]])[0] for i in range(6)]

    assert together == alone


def test_repetition_penalty_counts_prompt_and_output_once():
    row = torch.zeros(VOCAB_SIZE)
    row[3], row[5], row[6] = 4.0, 3.9, -1.0
    seq = Sequence(request(prompt_ids=[3, 3, 6], repetition_penalty=2.0))
    seq.token_ids += [3]

    [token] = Sampler(SamplerConfig(VOCAB_SIZE)).sample(Scores.of(row[None]), [seq])

    expected = row.clone()
    expected[3], expected[6] = 2.0, -2.0
    assert token.token_id == 5
    assert token.logprob == pytest.approx(float(torch.log_softmax(expected, -1)[5]), abs=1e-6)


def test_frequency_penalty_counts_the_output_only_and_every_time():
    row = torch.zeros(VOCAB_SIZE)
    row[3], row[5], row[7] = 4.0, 3.0, 2.6
    seq = Sequence(request(prompt_ids=[5, 5, 5], frequency_penalty=0.8))
    sampler = Sampler(SamplerConfig(VOCAB_SIZE))

    picked = []
    for _ in range(4):
        [token] = sampler.sample(Scores.of(row[None]), [seq])
        seq.token_ids.append(token.token_id)
        picked.append(token.token_id)

    assert picked == [3, 3, 5, 7]


def test_presence_penalty_is_subtracted_once_for_each_id_of_the_output():
    row = random_row()
    seq = Sequence(request(prompt_ids=[5, 6], output_ids=[7, 7, 8], presence_penalty=1.5))

    token = sample_row(row, seq)

    expected = row.clone()
    expected[[7, 8]] -= 1.5
    logprobs = torch.log_softmax(expected.double(), -1)
    assert token.token_id == int(expected.argmax())
    assert token.logprob == pytest.approx(float(logprobs.max()), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=40),
    share=st.floats(0.001, 1.0),
)
def test_min_p_keeps_who_has_that_share_of_the_best_ones_probability(scores, share):
    kept = kept_ids(steps.min_p(whole(*scores), share))

    probabilities = torch.softmax(torch.tensor(scores).double(), -1)
    relative = probabilities / probabilities.max()
    assert {i for i, x in enumerate(relative) if x > share * 1.00001} <= set(kept)
    assert set(kept) <= {i for i, x in enumerate(relative) if x > share * 0.99999}


def test_bias_is_added_by_id_before_the_choice():
    row = random_row()

    token_id, _ = sample(row, logit_bias={17: 100.0, 18: 99.0})
    banned = sample_row(row, Sequence(request(logit_bias={int(row.argmax()): -100.0})))

    assert token_id == 17
    assert banned.token_id == int(row.topk(2).indices[1])


@settings(max_examples=50, deadline=None)
@given(ids=st.sets(st.integers(0, VOCAB_SIZE - 1), min_size=1), do_sample=st.booleans())
def test_a_bitmask_leaves_only_the_ids_whose_bits_are_set(ids, do_sample):
    row = random_row()
    seq = Sequence(request(do_sample=do_sample, temperature=5.0 if do_sample else 1.0))

    token = sample_row(row, seq, bitmask_of(ids))

    expected = torch.full_like(row, -math.inf)
    expected[list(ids)] = row[list(ids)]
    logprobs = torch.log_softmax(expected.double() / seq.sampling.temperature, -1)
    assert token.token_id in ids
    assert token.logprob == pytest.approx(float(logprobs[token.token_id]), abs=1e-5)


def test_a_bitmask_shorter_than_the_vocabulary_rules_out_what_it_lacks():
    row = torch.zeros(VOCAB_SIZE)
    row[90] = 9.0

    token = sample_row(row, Sequence(request()), torch.tensor([0b100000, 0], dtype=torch.int32))

    assert token.token_id == 5


def test_the_end_of_sequence_cannot_be_chosen_before_min_tokens():
    row = torch.zeros(VOCAB_SIZE)
    row[40], row[41], row[7] = 9.0, 8.0, 1.0
    seq = Sequence(request(min_tokens=2, max_new_tokens=9))

    picked = []
    for _ in range(3):
        token = sample_row(row, seq, eos_token_ids=(40, 41))
        seq.token_ids.append(token.token_id)
        picked.append(token.token_id)

    assert picked == [7, 7, 40]


def test_a_grammar_that_allows_only_the_end_wins_over_min_tokens():
    seq = Sequence(request(min_tokens=2, max_new_tokens=9))

    token = sample_row(random_row(), seq, bitmask_of({40}), eos_token_ids=(40,))

    assert token.token_id == 40
    assert token.logprob == pytest.approx(0.0)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(-4, 4), min_size=3, max_size=VOCAB_SIZE),
    count=st.integers(1, 7),
    params=st.sampled_from(
        [{}, {"do_sample": True}, {"do_sample": True, "top_k": 3}, {"logit_bias": {1: 2.5}}]
    ),
)
def test_the_best_n_are_those_after_all_steps_with_ties_and_in_order(scores, count, params):
    row = torch.tensor(scores, dtype=torch.float32)
    seq = Sequence(msgspec.structs.replace(request(prompt_ids=[0], **params), top_n_tokens=count))

    token = sample_row(row, seq)

    changed = row.clone()
    changed[1] += params.get("logit_bias", {}).get(1, 0.0)
    if "top_k" in params:
        changed[changed < changed.sort(descending=True).values[2]] = -math.inf
    logprobs = torch.log_softmax(changed.double(), -1).tolist()
    ranked = sorted((-logprob, i) for i, logprob in enumerate(logprobs) if logprob > -math.inf)
    limit = ranked[min(count, len(ranked)) - 1][0]
    expected = [(i, -x) for x, i in ranked if x <= limit + 1e-9][: count + steps.MAX_TIES]
    assert [score.id for score in token.top] == [i for i, _ in expected]
    assert [score.logprob for score in token.top] == pytest.approx(
        [x for _, x in expected], rel=1e-5, abs=1e-6
    )
    own = [score.logprob for score in token.top if score.id == token.token_id]
    assert own in ([], [token.logprob])


def test_a_flat_row_reports_no_more_ties_than_the_limit():
    row = torch.zeros(1000)

    token = sample_row(row, Sequence(msgspec.structs.replace(request(), top_n_tokens=5)))

    assert [score.id for score in token.top] == list(range(5 + steps.MAX_TIES))


@pytest.mark.parametrize(
    "extreme",
    [
        {"temperature": 1e-38, "do_sample": True},
        {"temperature": 5e-324, "do_sample": True},
        {"repetition_penalty": 1e-38},
        {"repetition_penalty": 5e-324},
    ],
)
def test_extreme_parameters_still_give_a_token(extreme):
    row = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(3)) * 20

    token_id, logprob = sample(row, prompt_ids=[int(row.argmax())], **extreme)

    assert token_id == int(row.argmax())
    assert logprob == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("huge", ["temperature", "repetition_penalty"])
def test_a_factor_beyond_float32_still_gives_a_token(huge):
    row = random_row()
    row[5] = 0.0
    seq = Sequence(request(prompt_ids=[5, 6], do_sample=True, **{huge: 1e300}))

    token = sample_row(row, seq, bitmask_of({5, 6, 7}))

    assert token.token_id in {5, 6, 7}
    assert math.isfinite(token.logprob)


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
