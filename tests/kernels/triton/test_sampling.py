"""Draws in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.sampling_rows import (
    INFINITY,
    VOCAB_SIZES,
    rows_of,
    scaled,
    scores_of_every_kind,
)
from tgi_cli.kernels.sampling.kernel import draw_
from tgi_cli.kernels.sampling.reference import draw
from tgi_cli.kernels.sampling.settings import Field
from tgi_cli.kernels.score_cuts.kernel import Rows, cut_, no_limits, scores_at

ALMOST_ONE = 1 - 2**-53


def drawn(rows: Rows, *fields: Field) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the lowest scores left, ids and log-probabilities; -7 where nothing was written."""
    limits = no_limits(rows)
    for field in fields:
        cut_(limits, rows, field)
    ids = torch.full((len(rows.logits),), -7)
    logprobs, highest = torch.full((2, len(ids)), -7.0).unbind()
    draw_(limits, rows, ids, logprobs, highest)
    return scores_at(limits), ids, logprobs


@pytest.mark.parametrize("uniform", [0.0, 0.37, 0.93, ALMOST_ONE])
@pytest.mark.parametrize("vocab_size", [*VOCAB_SIZES, 3 * 4096 + 5])
def test_the_token_is_where_the_mass_passes_the_uniform_number(vocab_size, uniform):
    rows = rows_of(scores_of_every_kind(vocab_size), SAMPLES=1, UNIFORM=uniform, TEMPERATURE=0.7)

    assert_drawn(rows, uniform, *drawn(rows))


def test_a_token_that_was_cut_away_is_never_drawn():
    rows = rows_of(
        scores_of_every_kind(97), SAMPLES=1, UNIFORM=0.5, TEMPERATURE=0.7, TOP_K=9, TOP_P=0.8
    )

    assert_drawn(rows, 0.5, *drawn(rows, Field.TOP_K, Field.TOP_P))


def assert_drawn(
    rows: Rows, uniform: float, lowest: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor
) -> None:
    for index, token_id in enumerate(ids.tolist()):
        y = scaled(rows.logits[index], 0.7)
        is_kept = y >= float(lowest[index])
        edges = [max(0.0, uniform - 1e-6), min(ALMOST_ONE, uniform + 1e-6)]
        first, last = (draw(y, is_kept, edge)[0] for edge in edges)
        assert first <= token_id <= last
        assert is_kept[token_id]
        total = torch.logsumexp(y[is_kept], 0)
        assert float(logprobs[index]) == pytest.approx(float(y[token_id] - total), abs=2e-5)


def test_tokens_come_in_proportion_to_their_weights_over_all_uniform_numbers():
    probabilities = torch.tensor([0.1, 0.0, 0.4, 0.2, 0.3])
    uniforms = [(i + 0.5) / 100 for i in range(100)]
    rows = rows_of(probabilities.log().expand(100, -1).contiguous(), SAMPLES=1, UNIFORM=uniforms)

    _, ids, _ = drawn(rows)

    assert torch.bincount(ids, minlength=5).tolist() == [10, 0, 40, 20, 30]


def test_only_rows_that_sample_and_are_finite_are_written():
    logits = torch.randn(3, 97, generator=torch.Generator().manual_seed(0))
    logits[1, 96] = INFINITY

    _, ids, logprobs = drawn(rows_of(logits, SAMPLES=[0, 1, 1], UNIFORM=0.5))

    assert ids.tolist()[:2] == [-7, -7]
    assert logprobs.tolist()[:2] == [-7.0, -7.0]
    assert ids[2] >= 0


def test_a_row_has_the_same_bits_alone_and_among_others():
    logits = torch.randn(5, 9001, generator=torch.Generator().manual_seed(0))
    fields = {"SAMPLES": 1, "TEMPERATURE": 1.3, "UNIFORM": 0.61}
    _, ids, logprobs = drawn(rows_of(logits, **fields))

    _, alone, alone_logprobs = drawn(rows_of(logits[3:4], **fields))

    assert alone[0] == ids[3]
    assert torch.equal(alone_logprobs[0], logprobs[3])
