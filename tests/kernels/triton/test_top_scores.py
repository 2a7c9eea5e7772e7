"""The best scores of each row in Triton, interpreted, held against the CPU's."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.sampling_rows import VOCAB_SIZES, rows_of, scores_of_every_kind
from tgi_cli.kernels.sampling.settings import Field
from tgi_cli.kernels.score_cuts.kernel import cut_, no_limits, scores_at
from tgi_cli.kernels.top_scores import MAX_TIES
from tgi_cli.kernels.top_scores.kernel import best_scores
from tgi_cli.runtime.engine.sampling import logits as steps


def reported(ids: torch.Tensor, scores: torch.Tensor) -> list[tuple[int, float]]:
    """Return a row's ids and scores as the host orders them."""
    pairs = [(i, s) for i, s in zip(ids.tolist(), scores.tolist(), strict=True) if i >= 0]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def expected(row: torch.Tensor, count: int) -> list[tuple[int, float]]:
    best = float(row.max())
    found = steps.best_scores(steps.Candidates(row, None), count, 0.0)
    return [(score.id, score.logprob + best) for score in found]


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_the_best_come_with_those_that_tie_with_the_last(vocab_size):
    counts = [1, 5, 3, 20, 5, 2, 7]
    rows = rows_of(scores_of_every_kind(vocab_size), TOP_N=counts)

    ids, scores = best_scores(no_limits(rows), rows, max(counts))

    for index, count in enumerate(counts):
        pairs = reported(ids[index], scores[index])
        wanted = expected(rows.logits[index], count)
        assert [i for i, _ in pairs] == [i for i, _ in wanted]
        assert [s for _, s in pairs] == pytest.approx([s for _, s in wanted])


def test_ties_are_in_order_across_chunks_and_zero_ties_with_minus_zero():
    logits = torch.full((1, 9001), -9.0)
    logits[0, [3, 5000, 8999]] = torch.tensor([20.0, 30.0, 20.0])
    logits[0, [1, 4097, 4100, 8500, *range(8501, 8600)]] = 7.0
    zeros = torch.full((1, 9001), -1.0)
    zeros[0, [10, 4096, 9000]] = torch.tensor([0.0, -0.0, 0.0])
    rows = rows_of(torch.cat((logits, zeros)), TOP_N=[5, 1])

    ids, scores = best_scores(no_limits(rows), rows, 5)

    wanted = [i for i, _ in expected(logits[0], 5)]
    assert len(wanted) == 5 + MAX_TIES
    assert [i for i, _ in reported(ids[0], scores[0])] == wanted
    assert [i for i, _ in reported(ids[1], scores[1])] == [10, 4096, 9000]


def test_of_a_row_that_is_cut_only_those_left_are_reported():
    logits = torch.randn(2, 4100, generator=torch.Generator().manual_seed(0))
    rows = rows_of(logits, SAMPLES=1, TOP_K=[3, 40], TOP_N=5, TEMPERATURE=0.5)
    limits = no_limits(rows)
    cut_(limits, rows, Field.TOP_K)
    before = limits.clone()

    ids, scores = best_scores(limits, rows, 5)

    assert torch.equal(limits, before)
    for index, count in enumerate([3, 5]):
        y = (logits[index] - logits[index].max()) / 0.5
        pairs = reported(ids[index], scores[index])
        assert [i for i, _ in pairs] == y.topk(count).indices.tolist()
        assert pairs[-1][1] >= float(scores_at(limits)[index])


def test_rows_that_ask_for_none_or_are_not_finite_report_none():
    logits = torch.randn(3, 97, generator=torch.Generator().manual_seed(0))
    logits[1, 3] = float("nan")

    ids, _ = best_scores(no_limits(rows := rows_of(logits, TOP_N=[0, 4, 4])), rows, 4)

    assert (ids >= 0).sum(-1).tolist() == [0, 0, 4]
