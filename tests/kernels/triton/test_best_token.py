"""The likeliest token in Triton, interpreted: V on both sides of a chunk of 4096, and of three."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import randn
from tgi_cli.kernels.best_token import kernel

INFINITY = float("inf")
COLUMNS = [1, 97, 4096, 4097, 3 * 4096 + 5]


def assert_best(logits: torch.Tensor) -> None:
    ids, logprobs = kernel.best_token(logits)

    exact = torch.log_softmax(logits.double(), -1)
    assert ids.tolist() == [int((row == row.max()).nonzero()[0]) for row in logits]
    torch.testing.assert_close(
        logprobs.double(), exact.gather(1, ids[:, None])[:, 0], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("num_columns", COLUMNS)
def test_it_is_the_first_of_the_highest_with_its_log_probability(num_columns):
    logits = randn(5, num_columns, scale=5.0)
    logits[1] = 1.0  # all tie
    logits[2, : num_columns // 2] = -INFINITY
    logits[3] *= 20
    logits[4] = -INFINITY
    logits[4, -1] = -3e38

    assert_best(logits)


def test_a_tie_across_chunks_goes_to_the_first():
    logits = randn(2, 9001)
    logits[0, [8999, 4097, 4100]] = 9.0
    logits[1, 9000] = 9.0

    assert_best(logits)


@pytest.mark.parametrize("bad", [float("nan"), INFINITY])
@pytest.mark.parametrize("place", [0, 4095, 4096, 5000])
def test_a_row_that_is_not_finite_has_no_log_probability(bad, place):
    logits = randn(3, 5001)
    logits[1, place] = bad

    ids, logprobs = kernel.best_token(logits)

    assert logprobs.isnan().tolist() == [False, True, False]
    assert all(0 <= i < 5001 for i in ids.tolist())


@pytest.mark.parametrize("what", [-INFINITY, float("nan"), INFINITY])
def test_a_row_without_any_number_has_an_id_all_the_same(what):
    ids, logprobs = kernel.best_token(torch.full((1, 5001), what))

    assert ids.tolist() == [0]
    assert logprobs.isnan().all()


def test_a_row_has_the_same_bits_alone_and_among_others():
    logits = randn(7, 8195)
    _, together = kernel.best_token(logits)

    _, alone = kernel.best_token(logits[4:5])

    assert torch.equal(alone[0], together[4])


def test_logits_are_read_once(traffic):
    kernel.best_token(randn(3, 8195))

    assert traffic.loaded <= 1.01 * 3 * 8195 * 4
