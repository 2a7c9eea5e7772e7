from __future__ import annotations

import pytest

from tests.builders.engine import sequence
from tgi_cli.runtime.engine.block_manager import BlockManager
from tgi_cli.runtime.engine.sequence import Sequence


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

    with pytest.raises(AssertionError, match="block 0 has 2 owners"):
        blocks.check_integrity([seq, thief])


def compute(blocks: BlockManager, seq: Sequence, num_tokens: int) -> None:
    """Admit `seq` with room for `num_tokens` and compute its prompt."""
    blocks.reserve(seq, num_tokens, blocks.find_prefix(seq))
    blocks.grow(seq, seq.num_uncomputed_tokens)
    seq.num_computed_tokens = seq.num_sound_tokens = seq.num_tokens


def cached_tokens(blocks: BlockManager, prompt_ids: list[int]) -> int:
    """Return how much of a prompt that goes on after `prompt_ids` is in the cache."""
    prefix = blocks.find_prefix(sequence(99, prompt_ids=[*prompt_ids, 96]))
    return len(prefix) * blocks.block_size


@pytest.mark.parametrize(("prompt_ids", "num_cached"), [([0, 1, 2, 3], 4), ([0, 1, 2], 2)])
def test_the_specs_example_of_a_freed_prompt(prompt_ids, num_cached):
    blocks = BlockManager(num_blocks=12, block_size=2, prefix_caching=True)
    first, second = sequence(0, prompt_ids=prompt_ids), sequence(1, prompt_ids=prompt_ids)
    compute(blocks, first, 8)
    held = list(first.block_table)
    assert first.num_shared_blocks == 0

    blocks.free(first)
    compute(blocks, second, 8)

    # The last token is computed in any case, and never in a block that others may read; so
    # of a prompt that is cached as a whole, the last block isn't shared.
    assert second.num_shared_blocks == (len(prompt_ids) - 1) // 2
    assert second.block_table[: second.num_shared_blocks] == held[: second.num_shared_blocks]
    assert cached_tokens(blocks, prompt_ids) == num_cached
    blocks.check_integrity([first, second])


def test_the_specs_example_of_two_equal_prompts_alive_together():
    blocks = BlockManager(num_blocks=10, block_size=1, prefix_caching=True)
    equal = [sequence(i, prompt_ids=[0, 1, 2, 3]) for i in range(2)]
    for seq in equal:
        compute(blocks, seq, 4)
    assert blocks.num_used_blocks == 8

    for seq in equal:
        blocks.free(seq)

    assert blocks.num_cached_blocks == 4  # TGI has 5 more free, we 6: we keep no block for health
    assert blocks.num_used_blocks == 0
    assert cached_tokens(blocks, [0, 1, 2, 3]) == 4
    blocks.check_integrity([])


def test_generated_tokens_are_cached_too_but_for_the_last_which_was_never_computed():
    blocks = BlockManager(num_blocks=9, block_size=2, prefix_caching=True)
    seq = sequence(0, prompt_ids=[5, 6, 7])
    compute(blocks, seq, 6)
    seq.token_ids += [8, 9]
    blocks.grow(seq, 1)
    seq.num_computed_tokens = seq.num_sound_tokens = 4

    blocks.free(seq)

    assert cached_tokens(blocks, [5, 6, 7, 8, 9]) == 4


def test_only_what_was_computed_and_found_sound_is_cached():
    blocks = BlockManager(num_blocks=12, block_size=2, prefix_caching=True)
    promised, unseen, half_seen = (sequence(i, num_tokens=7) for i in range(3))
    for seq in (promised, unseen, half_seen):
        blocks.reserve(seq, 8)
    for seq in (unseen, half_seen):
        blocks.grow(seq, 5)
        seq.num_computed_tokens = 5
    half_seen.num_sound_tokens = 3
    dirty = unseen.block_table + half_seen.block_table[1:]

    for seq in (promised, unseen, half_seen):
        blocks.free(seq)

    assert cached_tokens(blocks, promised.token_ids) == 0
    assert cached_tokens(blocks, unseen.token_ids) == 0
    assert cached_tokens(blocks, half_seen.token_ids) == 2
    assert blocks.take_dirty() == dirty
    assert blocks.take_dirty() == []


def test_a_cached_block_counts_as_free_and_is_given_up_when_one_is_wanted():
    blocks = BlockManager(num_blocks=4, block_size=2, prefix_caching=True)
    old, new = sequence(0, num_tokens=6), sequence(1, num_tokens=4)
    compute(blocks, old, 6)
    blocks.free(old)

    assert blocks.can_reserve(8)
    compute(blocks, new, 4)

    assert blocks.num_used_blocks == 2
    assert cached_tokens(blocks, old.token_ids) == 4  # from its end, so its beginning stays
    blocks.check_integrity([new])


def test_sharing_makes_room_and_is_promised_once():
    blocks = BlockManager(num_blocks=6, block_size=2, prefix_caching=True)
    prompt_ids = [1, 2, 3, 4, 5]
    first, second, third = (sequence(i, prompt_ids=[*prompt_ids, i]) for i in range(3))
    compute(blocks, first, 8)
    blocks.free(first)

    for seq in (second, third):
        compute(blocks, seq, 8)

    assert blocks.num_reserved_blocks == blocks.num_used_blocks + 2 == 6
    assert not blocks.can_reserve(1)
    assert second.block_table[:2] == third.block_table[:2]
    blocks.check_integrity([second, third])


def test_a_request_for_scores_of_its_prompt_neither_finds_nor_leaves_anything():
    blocks = BlockManager(num_blocks=9, block_size=2, prefix_caching=True)
    compute(blocks, sequence(0, prompt_ids=[1, 2, 3]), 4)
    scored = sequence(1, prompt_ids=[7, 8, 9], scores_prompt=True)
    compute(blocks, scored, 4)

    blocks.free(scored)

    assert cached_tokens(blocks, [7, 8, 9]) == 0
    assert blocks.find_prefix(sequence(2, prompt_ids=[1, 2, 3], scores_prompt=True)) == []


def test_without_prefix_caching_nothing_is_kept():
    blocks = BlockManager(num_blocks=9, block_size=2)
    seq = sequence(0, num_tokens=6)
    compute(blocks, seq, 8)

    blocks.free(seq)

    assert blocks.num_cached_blocks == 0
    assert blocks.find_prefix(sequence(1, prompt_ids=seq.token_ids)) == []


def test_a_distrusted_prefix_is_zeroed_only_when_its_last_reader_has_gone():
    blocks = BlockManager(num_blocks=9, block_size=2, prefix_caching=True)
    source = sequence(0, prompt_ids=[1, 2, 3, 4])
    compute(blocks, source, 4)
    blocks.free(source)
    bad, reader = (sequence(i, prompt_ids=[1, 2, 3, 4, i]) for i in (1, 2))
    for seq in (bad, reader):
        compute(blocks, seq, 6)
    shared, own = bad.block_table[:2], bad.block_table[2:]

    blocks.free_failed(bad, distrusts_prefix=True)

    assert blocks.take_dirty() == own
    assert cached_tokens(blocks, [1, 2, 3, 4]) == 0
    blocks.check_integrity([reader])
    blocks.free(reader)
    assert blocks.take_dirty() == shared
    assert cached_tokens(blocks, [1, 2, 3, 4]) == 0  # nor does it come back with its reader
    blocks.check_integrity([])
