from __future__ import annotations

import pytest

from tests.builders.engine import sequence
from tgi_cli.runtime.engine.block_manager import BlockManager


def test_the_block_freed_last_is_taken_first():
    blocks = BlockManager(num_blocks=7, block_size=3)
    first, second = sequence(0), sequence(1)
    for seq in (first, second):
        blocks.reserve(seq, 6)
        blocks.grow(seq, 4)
    freed = list(second.block_table)

    blocks.free(second)
    third = sequence(2)
    blocks.reserve(third, 6)
    blocks.grow(third, 4)

    assert third.block_table == freed
    blocks.check_integrity([first, third])


def test_promises_never_pass_the_number_of_blocks():
    blocks = BlockManager(num_blocks=5, block_size=4)
    blocks.reserve(sequence(0), 13)  # four blocks

    assert blocks.can_reserve(4)
    assert not blocks.can_reserve(5)


def test_growing_past_the_promise_takes_only_what_nobody_was_promised():
    blocks = BlockManager(num_blocks=5, block_size=2)
    grower, other = sequence(0, num_tokens=2), sequence(1)
    blocks.reserve(grower, 2)
    blocks.reserve(other, 6)

    assert blocks.can_grow(grower, 4)
    assert not blocks.can_grow(grower, 5)
    assert blocks.grow(grower, 4) == grower.block_table
    blocks.check_integrity([grower, other])


def test_free_returns_what_was_held_and_what_was_promised():
    blocks = BlockManager(num_blocks=5, block_size=2)
    seq = sequence()
    blocks.reserve(seq, 10)
    blocks.grow(seq, 3)

    blocks.free(seq)

    assert blocks.num_used_blocks == blocks.num_reserved_blocks == 0
    blocks.check_integrity([seq])


def test_check_integrity_finds_a_block_held_twice():
    blocks = BlockManager(num_blocks=5, block_size=2)
    seq, thief = sequence(0), sequence(1)
    blocks.reserve(seq, 4)
    blocks.grow(seq, 3)
    thief.block_table = [seq.block_table[0]]

    with pytest.raises(AssertionError, match="counted 1, held 2"):
        blocks.check_integrity([seq, thief])
