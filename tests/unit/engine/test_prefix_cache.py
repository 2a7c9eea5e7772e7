"""The cache of prefixes alone; `test_block_manager.py` has it with blocks that come and go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_cli.runtime.engine.prefix_cache import PrefixCache


def find(cache: PrefixCache, token_ids: list[int], namespace: str = "") -> list[int]:
    return cache.find(token_ids, len(token_ids), namespace)


def test_the_specs_examples_of_inserting_and_finding():
    cache = PrefixCache(block_size=1)

    # Blocks are named by their tokens, but for the second row's, which have names of their own.
    assert cache.insert([0, 1, 2], [0, 1, 2]) == 0
    assert cache.insert([0, 1, 2], [20, 21, 22]) == 3
    assert cache.insert([1, 2, 3], [11, 12, 13]) == 0
    assert cache.insert([0, 1, 2, 3, 4], [30, 31, 32, 3, 4]) == 3
    assert cache.insert([0, 1, 2, 3, 5, 6, 7], [40, 41, 42, 43, 5, 6, 7]) == 4
    assert find(cache, [0, 1, 2, 3, 5]) == [0, 1, 2, 3, 5]
    assert find(cache, [0, 1, 3, 4]) == [0, 1]
    cache.check_integrity(Counter())


def test_only_whole_blocks_match():
    cache = PrefixCache(block_size=3)
    cache.insert([1, 2, 3, 4, 5, 6], [70, 71])

    assert find(cache, [1, 2, 3, 4, 5, 6, 7]) == [70, 71]
    assert find(cache, [1, 2, 3, 4, 5]) == [70]
    assert cache.find([1, 2, 3, 4, 5, 6], 5) == [70]
    assert find(cache, [1, 2]) == []
    assert find(cache, [2, 3, 1]) == []


def test_a_namespace_sees_nothing_of_another():
    cache = PrefixCache(block_size=2)
    cache.insert([1, 2, 3, 4], [10, 11])
    cache.insert([1, 2], [12], "adapter")

    assert find(cache, [1, 2, 3, 4], "adapter") == [12]
    assert find(cache, [1, 2, 3, 4]) == [10, 11]
    assert find(cache, [1, 2, 3, 4], "another") == []


def test_leaves_go_first_and_among_them_the_one_unused_for_longest():
    cache = PrefixCache(block_size=1)
    cache.insert([1, 2, 3], [1, 2, 3])
    cache.insert([1, 4], [0, 4])  # the parent is used again, so it outlives both leaves
    cache.insert([5], [5])
    cache.pin([1, 2, 3])
    cache.unpin([1, 2, 3])  # the newest use of all

    evicted = [cache.evict() for _ in range(5)]

    assert evicted == [4, 5, 3, 2, 1]
    assert cache.num_blocks == 0


def test_what_is_pinned_is_not_evicted():
    cache = PrefixCache(block_size=1)
    cache.insert([1, 2], [1, 2])
    cache.insert([3], [3])
    cache.pin([1])

    assert cache.num_unpinned_blocks == 2
    assert [cache.evict(), cache.evict()] == [2, 3]
    with pytest.raises(AssertionError, match="nothing can be given up"):
        cache.evict()
    assert find(cache, [1, 2]) == [1]


def test_a_distrusted_prefix_is_found_no_more_and_released_by_its_last_holder():
    cache = PrefixCache(block_size=1)
    cache.insert([1, 2, 3], [1, 2, 3])
    cache.insert([1, 4], [0, 4])
    cache.insert([5], [5])
    cache.pin([1, 2])
    cache.pin([1])

    released = cache.distrust([1])

    assert sorted(released) == [3, 4]
    assert find(cache, [1, 2, 3]) == []
    assert find(cache, [5]) == [5]
    assert not cache.are_cached([1, 2])
    cache.check_integrity(Counter({1: 2, 2: 1}))
    assert cache.distrust([1, 2]) == []
    assert cache.unpin([1]) == []
    assert cache.unpin([1, 2]) == [1, 2]
    cache.check_integrity(Counter())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["insert", "pin", "unpin", "evict", "distrust"]),
            st.lists(st.integers(0, 2), min_size=1, max_size=9),
        ),
        max_size=60,
    )
)
def test_every_block_is_in_a_tree_pinned_or_given_back_exactly_once(operations):
    cache = PrefixCache(block_size=2)
    known: set[int] = set()
    pinned: list[list[int]] = []
    next_block = 0

    for operation, token_ids in operations:
        if operation == "insert":
            blocks = list(range(next_block, next_block + len(token_ids) // 2))
            next_block += len(blocks)
            num_present = cache.insert(token_ids, blocks)
            known |= set(blocks[num_present // 2 :])
            assert len(find(cache, token_ids)) == len(blocks)
        elif operation == "pin":
            pinned.append(find(cache, token_ids))
            cache.pin(pinned[-1])
        elif operation == "unpin" and pinned:
            known -= set(cache.unpin(pinned.pop(token_ids[0] % len(pinned))))
        elif operation == "evict" and cache.num_unpinned_blocks:
            known.remove(cache.evict())
        elif operation == "distrust" and pinned:
            known -= set(cache.distrust(pinned[token_ids[0] % len(pinned)]))
        cache.check_integrity(Counter(block for blocks in pinned for block in blocks))
        assert cache.num_blocks == len(known)
