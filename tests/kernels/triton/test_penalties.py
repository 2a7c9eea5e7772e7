"""Changes of scores in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import randn
from tests.kernels.triton.sampling_rows import INFINITY, rows_of
from tgi_cli.kernels.penalties import MAX_COUNT, kernel, reference
from tgi_cli.kernels.sampling.settings import Field

VOCAB_SIZE = 4099  # a chunk of 4096 and 3 more
NO_COUNTS = torch.zeros(1, VOCAB_SIZE, dtype=torch.int16)
NO_MASKS = torch.zeros(1, 1, dtype=torch.int32)


def some_counts(num_rows: int) -> torch.Tensor:
    """Return codes of ids that are new, of the prompt, of the output, of both."""
    counts = (randn(num_rows, VOCAB_SIZE, seed=3).abs() * 2).to(torch.int16)
    counts[:, 7] = 2 * MAX_COUNT
    return counts


def some_masks(num_rows: int, num_words: int) -> torch.Tensor:
    return (randn(num_rows, num_words, seed=5) * 1e9).to(torch.int32)


def test_rows_are_changed_by_their_own_settings_and_counts():
    logits, counts, masks = randn(5, VOCAB_SIZE, scale=5.0), some_counts(3), some_masks(2, 129)
    rows = rows_of(
        logits,
        COUNT_ROW=[2, -1, 0, 1, -1],
        MASK_ROW=[-1, 1, 0, -1, -1],
        REPETITION=[1.3, 9, 1.0, 0.7, 9],
        FREQUENCY=[0.2, 9, -1.5, 0, 9],
        PRESENCE=[0, 9, 0.5, 0.3, 9],
    )
    before = logits.clone()

    kernel.change_(logits, rows.settings, counts, masks)

    all_bits = torch.full((129,), -1, dtype=torch.int32)
    nothing = torch.zeros(VOCAB_SIZE, dtype=torch.int16)
    none = torch.empty(0, dtype=torch.int64)
    for index, (count_row, mask_row) in enumerate([(2, -1), (-1, 1), (0, 0), (1, -1), (-1, -1)]):
        settings = rows.settings[index].clone()
        if count_row < 0:
            settings[Field.REPETITION] = 1
        expected = reference.changed(
            before[index].double(),
            settings,
            nothing if count_row < 0 else counts[count_row],
            all_bits if mask_row < 0 else masks[mask_row],
            none,
            none,
        )
        torch.testing.assert_close(logits[index], expected.float(), rtol=1e-6, atol=1e-5)


def test_what_a_short_bitmask_lacks_is_ruled_out():
    logits = torch.zeros(1, VOCAB_SIZE)
    rows = rows_of(logits, MASK_ROW=0)

    kernel.change_(logits, rows.settings, NO_COUNTS, torch.tensor([[0b101, -(1 << 31)]]).int())

    assert (logits[0] == 0).nonzero()[:, 0].tolist() == [0, 2, 63]


@pytest.mark.parametrize("penalty", [1e-37, 1e37])
def test_an_extreme_penalty_gives_numbers(penalty):
    logits = torch.tensor([[3.0, -3.0, 0.0, -INFINITY]])
    rows = rows_of(logits, COUNT_ROW=0, REPETITION=penalty)

    kernel.change_(logits, rows.settings, torch.ones(1, 4, dtype=torch.int16), NO_MASKS)

    assert logits.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), INFINITY])
def test_a_bad_score_is_not_hidden(bad):
    logits = torch.zeros(1, VOCAB_SIZE)
    logits[0, 40] = bad
    rows = rows_of(logits, COUNT_ROW=0, REPETITION=2.0, MASK_ROW=0, FORBIDS=1)

    kernel.change_(logits, rows.settings, some_counts(1), NO_MASKS)
    kernel.forbid_(logits, rows.settings, torch.tensor([40], dtype=torch.int32))

    assert not logits[0, 40] < INFINITY


@pytest.mark.parametrize("num_biases", [1, 255, 256, 700])
def test_biases_are_added_to_their_own_row(num_biases):
    logits = torch.zeros(3, VOCAB_SIZE)
    rows = rows_of(logits, BIAS_START=[0, 2, 2], BIAS_END=[2, 2, 2 + num_biases])
    ids = torch.tensor([4098, 0, *range(5, 5 + num_biases)], dtype=torch.int32)
    biases = torch.arange(1.0, len(ids) + 1)

    kernel.add_bias_(logits, rows.settings, ids, biases)

    expected = torch.zeros(3, VOCAB_SIZE)
    expected[0, [4098, 0]] = biases[:2]
    expected[2, ids[2:].long()] = biases[2:]
    assert torch.equal(logits, expected)


def test_ends_are_ruled_out_where_anything_else_is_left():
    ends = torch.tensor([4097, 3], dtype=torch.int32)
    logits = torch.full((4, VOCAB_SIZE), -INFINITY)
    logits[:, ends] = 2.0
    logits[[1, 2], [4098, 0]] = -50.0  # something else is left
    logits[3] = 1.0
    rows = rows_of(logits, FORBIDS=[1, 1, 1, 0])
    before = logits.clone()

    kernel.forbid_(logits, rows.settings, ends)

    expected = [reference.without(row, ends) for row in before[:3]]
    assert torch.equal(logits, torch.stack([*expected, before[3]]))
    assert float(logits[0].max()) == 2.0


def test_a_token_is_counted_in_its_rows_counts_up_to_the_most():
    counts = some_counts(3)
    before = counts.clone()
    rows = rows_of(torch.zeros(3, VOCAB_SIZE), COUNT_ROW=[1, -1, 0])

    kernel.count_(counts, rows.settings, torch.tensor([7, 8, 4098]))

    expected = before.clone()
    expected[0, 4098] += 2
    assert torch.equal(counts, expected)


def test_a_penalised_row_moves_ten_bytes_a_score(traffic):
    logits = torch.zeros(2, VOCAB_SIZE)
    rows = rows_of(logits, COUNT_ROW=[0, -1], REPETITION=2.0)
    traffic.reset()

    kernel.change_(logits, rows.settings, NO_COUNTS, NO_MASKS)

    assert traffic.total <= 1.01 * VOCAB_SIZE * (4 + 2 + 4)
