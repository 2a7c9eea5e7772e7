"""The unit cases of spec/scheduling.md section 2.2, and what else section 2 says of the queue.

Each entry has 1 input token and 1 new token; blocks of 1 token, 16 of them. Rows of the spec's
table that have no counterpart: TGI's numbers of batches, which no client can see, and the padded
cache with speculation, since the cache is always paged here and the blocks are the only limit
on tokens (`token_budget` in the table is compared for padded caches only). Where the table
has no maximum, 99 stands here.
"""

from __future__ import annotations

import pytest

from tests.builders.engine import sequence
from tgi_cli.runtime.engine.block_manager import BlockManager
from tgi_cli.runtime.engine.queue import WaitingQueue
from tgi_cli.runtime.engine.sequence import Sequence


class Queue:
    def __init__(
        self, *, num_blocks: int = 16, block_size: int = 1, prefill_chunking: bool = False
    ) -> None:
        self.blocks = BlockManager(num_blocks, block_size, prefix_caching=True)
        self.waiting = WaitingQueue(
            self.blocks, reserved_new_tokens=1024, prefill_chunking=prefill_chunking
        )
        self.sequences: list[Sequence] = []

    def add(self, num_tokens: int = 1, max_new_tokens: int = 1) -> Sequence:
        seq = sequence(len(self.sequences), num_tokens, max_new_tokens)
        self.sequences.append(seq)
        self.waiting.append(seq)
        return seq

    def next_batch(
        self, prefill_budget: int, *, min_size: int = 0, max_size: int = 99
    ) -> list[tuple[int, int]]:
        """Return the requests taken and how many of their tokens would be computed."""
        taken = self.waiting.next_batch(
            min_size=min_size, max_size=max_size, prefill_budget=prefill_budget
        )
        self.blocks.check_integrity(self.sequences)
        return [(seq.request_id, num_tokens) for seq, num_tokens in taken]


@pytest.mark.parametrize("min_size", [0, 1])
def test_nobody_is_taken_from_an_empty_queue(min_size):
    assert Queue().next_batch(1, min_size=min_size) == []


def test_a_batch_is_what_fits_and_a_minimum_or_no_budget_leaves_the_rest_waiting():
    queue = Queue()
    queue.add()
    queue.add()
    assert queue.next_batch(2) == [(0, 1), (1, 1)]
    queue.add()

    assert queue.next_batch(2, min_size=2) == []
    assert queue.next_batch(0, min_size=1) == []
    assert len(queue.waiting) == 1
    assert queue.next_batch(2, min_size=1) == [(2, 1)]


def test_a_maximum_leaves_the_rest_waiting():
    queue = Queue()
    queue.add()
    queue.add()

    assert queue.next_batch(2, max_size=0) == []
    assert queue.next_batch(2, max_size=1) == [(0, 1)]
    assert len(queue.waiting) == 1


def test_the_prefill_budget_ends_a_batch():
    queue = Queue()
    queue.add()
    queue.add()
    assert queue.next_batch(1) == [(0, 1)]
    queue.add()

    assert queue.next_batch(3) == [(1, 1), (2, 1)]


def test_a_request_whose_client_is_gone_is_not_taken():
    queue = Queue()
    gone = queue.add()

    queue.waiting.remove(gone)

    assert queue.next_batch(1) == []
    assert len(queue.waiting) == 0


def test_fewer_than_the_minimum_are_put_back_in_order_with_nothing_promised():
    queue = Queue(num_blocks=6)
    for num_tokens in (2, 3, 4):
        queue.add(num_tokens)

    assert queue.next_batch(99, min_size=3) == []
    assert [seq.request_id for seq in queue.waiting] == [0, 1, 2]
    assert queue.blocks.num_reserved_blocks == 0


def test_a_small_request_does_not_overtake_one_that_does_not_fit():
    queue = Queue(num_blocks=6)
    for num_tokens in (4, 3, 1):
        queue.add(num_tokens)

    assert queue.next_batch(99) == [(0, 4)]


def test_the_promise_is_the_input_and_all_new_tokens_but_the_last():
    queue = Queue(num_blocks=7)
    queue.add(num_tokens=5, max_new_tokens=3)

    assert queue.next_batch(99) == [(0, 5)]
    assert queue.blocks.num_reserved_blocks == 7


def test_the_last_of_a_batch_is_cut_with_chunking_and_waits_without():
    for prefill_chunking, expected in ((True, [(0, 3), (1, 2)]), (False, [(0, 3)])):
        queue = Queue(prefill_chunking=prefill_chunking)
        queue.add(3)
        queue.add(4)
        queue.add(1)

        assert queue.next_batch(5) == expected


def test_a_prompt_longer_than_any_budget_goes_alone_and_in_parts_rather_than_never():
    queue = Queue()
    queue.add(9)
    queue.add(1)

    assert queue.next_batch(4) == [(0, 4)]


def test_only_what_is_not_cached_counts_against_the_budget():
    queue = Queue(block_size=2)
    first = queue.add(7)
    assert queue.next_batch(7) == [(0, 7)]
    queue.blocks.grow(first, 7)
    first.num_computed_tokens = first.num_sound_tokens = 7
    queue.blocks.free(first)
    again = sequence(1, prompt_ids=[*first.token_ids, 5])
    queue.sequences.append(again)
    queue.waiting.append(again)
    queue.add(2)

    assert queue.next_batch(4) == [(1, 2), (2, 2)]


def test_a_prefix_found_for_one_who_is_put_back_is_unpinned():
    queue = Queue(num_blocks=6, block_size=2)
    first = queue.add(4)
    queue.next_batch(4)
    queue.blocks.grow(first, 4)
    first.num_computed_tokens = first.num_sound_tokens = 4
    queue.blocks.free(first)
    again = sequence(1, prompt_ids=[*first.token_ids, 5])
    queue.sequences.append(again)
    queue.waiting.append(again)
    queue.add(9)

    assert queue.next_batch(99, min_size=2) == []

    assert again.num_computed_tokens == 0
    assert queue.blocks.num_reserved_blocks == 0
    assert queue.blocks.num_cached_blocks == 2
