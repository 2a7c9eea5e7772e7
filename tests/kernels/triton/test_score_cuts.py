"""Top-k, top-p and min-p in Triton, interpreted, held against sorts and the CPU's steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.triton.sampling_rows import (
    INFINITY,
    VOCAB_SIZES,
    rows_of,
    scaled,
    scores_of_every_kind,
)
from tgi_cli.kernels.sampling.settings import Field
from tgi_cli.kernels.score_cuts.kernel import Rows, cut_, no_limits, scores_at
from tgi_cli.kernels.score_cuts.reference import kept
from tgi_cli.runtime.engine.sampling import logits as steps


def lowest_scores(rows: Rows, *fields: Field) -> torch.Tensor:
    """Return the lowest score that may still be picked in each row, after the cuts in `fields`."""
    limits = no_limits(rows)
    for field in fields:
        cut_(limits, rows, field)
    return scores_at(limits)


def left(rows: Rows, index: int, lowest: torch.Tensor) -> set[int]:
    y = scaled(rows.logits[index], float(rows.settings[index, Field.TEMPERATURE]))
    return set((y >= float(lowest[index])).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_top_k_keeps_the_k_highest_and_who_ties_with_the_last(vocab_size):
    top_k = [1, 2, 50, 40, 2, 96, 4096]
    rows = rows_of(scores_of_every_kind(vocab_size), SAMPLES=1, TOP_K=top_k)

    lowest = lowest_scores(rows, Field.TOP_K)

    for index, k in enumerate(top_k):
        y = scaled(rows.logits[index], 1.0)
        expected = kept(y, k, 1.0, -INFINITY)
        assert left(rows, index, lowest) == set(expected.nonzero()[:, 0].tolist()), index


def assert_reaches(y: torch.Tensor, chosen: set[int], p: float) -> None:
    """Hold the chosen of `y` against a sort: exactly right, but for rounding of the mass."""
    must, may = (kept(y, 0, each, -INFINITY) for each in (p * (1 - 1e-5), p * (1 + 1e-5)))
    if p * (1 + 1e-5) >= 1.0:
        may = torch.ones_like(may)
    assert set(must.nonzero()[:, 0].tolist()) <= chosen
    assert chosen <= set(may.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_top_p_keeps_the_fewest_of_the_highest_that_reach_the_mass(vocab_size):
    top_p = [0.5, 0.9, 0.33, 0.95, 0.999, 1e-9, 0.7]
    temperature = [0.7, 1.0, 1.0, 3.0, 1e-37, 1.0, 1.0]
    rows = rows_of(
        scores_of_every_kind(vocab_size), SAMPLES=1, TOP_P=top_p, TEMPERATURE=temperature
    )

    lowest = lowest_scores(rows, Field.TOP_P)

    for index, p in enumerate(top_p):
        y = scaled(rows.logits[index], temperature[index])
        assert_reaches(y, left(rows, index, lowest), p)


def test_top_k_tells_scores_apart_that_differ_in_their_last_bit():
    one = torch.tensor(-1.0)
    above, below = (torch.nextafter(one, torch.tensor(each)) for each in (0.0, -9.0))
    logits = torch.stack((torch.tensor(0.0), one, above, below, one))[None]

    for k, expected in enumerate([{0}, {0, 2}, {0, 1, 2, 4}, {0, 1, 2, 4}], start=1):
        rows = rows_of(logits, SAMPLES=1, TOP_K=k)
        assert left(rows, 0, lowest_scores(rows, Field.TOP_K)) == expected


def test_top_p_is_a_share_of_what_top_k_has_left():
    logits = torch.randn(1, 97, generator=torch.Generator().manual_seed(0)) * 0.1
    rows = rows_of(logits, SAMPLES=1, TOP_K=10, TOP_P=0.55)

    chosen = left(rows, 0, lowest_scores(rows, Field.TOP_K, Field.TOP_P))

    assert chosen == set(logits[0].topk(6).indices.tolist())


SCORE = st.floats(-30, 30, width=32) | st.integers(-3, 3).map(float) | st.just(-INFINITY)
ROW = st.tuples(
    st.lists(SCORE, min_size=1, max_size=40).filter(lambda row: max(row) > -INFINITY),
    st.integers(0, 45),  # top_k
    st.just(1.0) | st.floats(0.01, 0.99),  # top_p
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),  # min_p
    st.floats(0.1, 9.0),  # temperature
)


def kept_on_cpu(
    row: torch.Tensor, top_k: int, top_p: float, min_p: float, temperature: float
) -> set[int]:
    candidates = steps.Candidates(steps.apply_temperature(row, temperature), None)
    if top_k:
        candidates = steps.top_k(candidates, top_k)
    if top_p < 1.0:
        candidates = steps.top_p(candidates, top_p)
    if min_p:
        candidates = steps.min_p(candidates, min_p)
    return set(range(len(row))) if candidates.ids is None else set(candidates.ids.tolist())


@settings(max_examples=5, deadline=None)
@given(cases=st.lists(ROW, min_size=12, max_size=12))
def test_rows_with_different_cuts_keep_whom_the_cpu_keeps(cases):
    scores, top_k, top_p, min_p, temperature = zip(*cases, strict=True)
    width = max(map(len, scores))
    logits = torch.tensor([[*row, *[-INFINITY] * (width - len(row))] for row in scores])
    rows = rows_of(
        logits,
        SAMPLES=1,
        TOP_K=list(top_k),
        TOP_P=list(top_p),
        LOG_MIN_P=[math.log(share) if share else -INFINITY for share in min_p],
        TEMPERATURE=list(temperature),
    )

    lowest = lowest_scores(rows, Field.TOP_K, Field.TOP_P)

    for index, (_, k, p, share, warmth) in enumerate(cases):
        # The CPU's mass is fp64: at its edge either may be right.
        edges = [p, p] if p == 1.0 else [p * (1 - 1e-5), p * (1 + 1e-5)]
        least, most = (kept_on_cpu(logits[index], k, edge, share, warmth) for edge in edges)
        assert least <= left(rows, index, lowest) <= most, cases[index]


def test_rows_that_ask_for_nothing_or_are_not_finite_are_not_cut():
    logits = torch.randn(4, 97, generator=torch.Generator().manual_seed(0))
    logits[3, 50] = float("nan")
    rows = rows_of(logits, SAMPLES=[0, 1, 1, 1], TOP_K=[5, 0, 97, 5], TOP_P=[0.5, 1, 1, 0.5])

    limits = no_limits(rows)
    cut_(limits, rows, Field.TOP_K)
    cut_(limits, rows, Field.TOP_P)

    assert limits[0] == limits[1] == limits[3]
    assert left(rows, 2, scores_at(limits)) == set(range(97))


def test_a_row_is_cut_at_the_same_bits_alone_and_among_others():
    fields = {"SAMPLES": 1, "TOP_K": 40, "TOP_P": 0.8, "TEMPERATURE": 0.7}
    logits = torch.randn(3, 9001, generator=torch.Generator().manual_seed(0))

    together = lowest_scores(rows_of(logits, **fields), Field.TOP_K, Field.TOP_P)
    alone = lowest_scores(rows_of(logits[2:], **fields), Field.TOP_K, Field.TOP_P)

    assert torch.equal(alone[0], together[2])


def test_each_pass_reads_each_score_once(traffic):
    rows = rows_of(torch.randn(1, 8192), SAMPLES=1, TOP_P=0.8)
    traffic.reset()

    lowest_scores(rows, Field.TOP_P)

    assert traffic.total <= 1.02 * 8 * 8192 * 4
