"""Own the KV blocks: who holds which, who was promised how many, which outlive their sequence.

A block holds the keys and values of `block_size` tokens. Three numbers are kept apart:

- *reserved*: promised to a sequence at admission, so that it can't run out half-way. A block that
  several sequences share is promised once. The sum never passes the number of blocks: admission
  can't overcommit.
- *used*: in a sequence's block table. Blocks are handed out as the sequence grows, the one freed
  last first, so that a lightly loaded server touches little memory.
- *cached*: kept for its prefix after its sequence has gone (`prefix_cache.py`). Nobody was
  promised it, so it counts as free, and is given up when a block is wanted and none is empty.

A sequence may grow past its promise only into blocks that nobody was promised; when there are
none the scheduler preempts. No tensors here. Paged KV: Kwon et al., PagedAttention, SOSP 2023.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tgi_cli.runtime.engine.prefix_cache import PrefixCache
from tgi_cli.runtime.engine.sequence import Sequence


class BlockManager:
    def __init__(self, num_blocks: int, block_size: int, *, prefix_caching: bool = False) -> None:
        assert num_blocks > 0, num_blocks
        assert block_size > 0, block_size
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._prefix_caching = prefix_caching
        self._prefixes = PrefixCache(block_size)
        self._free = list(range(num_blocks - 1, -1, -1))  # a stack; block 0 is taken first
        self._num_reserved = 0  # over all sequences, without the blocks that they share
        self._dirty: list[int] = []  # free, but what is in them may be no number

    @property
    def num_used_blocks(self) -> int:
        """Blocks that sequences hold."""
        return self.num_blocks - self.num_free_blocks - self.num_cached_blocks

    @property
    def num_reserved_blocks(self) -> int:
        return self._num_reserved + self._prefixes.num_pinned_blocks

    @property
    def num_free_blocks(self) -> int:
        """Blocks with nothing in them that anybody could want."""
        return len(self._free)

    @property
    def num_cached_blocks(self) -> int:
        """Blocks that nobody holds, kept for their prefix."""
        return self._prefixes.num_unpinned_blocks

    @property
    def num_tokens_capacity(self) -> int:
        return self.num_blocks * self.block_size

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def looks_up(self, seq: Sequence) -> bool:
        """Whether `seq` may share what others have computed."""
        return self._prefix_caching and not seq.scores_prompt

    def find_prefix(self, seq: Sequence) -> list[int]:
        """Return cached blocks that `seq` can begin with.

        Its last token is never among them: that one has to be computed to have a next one, and
        would be written into a block that others read.
        """
        if not self.looks_up(seq):
            return []
        return self._prefixes.find(seq.token_ids, seq.num_tokens - 1, seq.namespace)

    def can_reserve(self, num_tokens: int, prefix: list[int] | None = None) -> bool:
        """Whether a new sequence with this cached prefix can be promised room for `num_tokens`."""
        num_wanted = self.blocks_for(num_tokens)
        if prefix:
            num_wanted += self._prefixes.count_unpinned(prefix) - len(prefix)
        return self.num_reserved_blocks + num_wanted <= self.num_blocks

    def reserve(self, seq: Sequence, num_tokens: int, prefix: list[int] | None = None) -> None:
        """Promise `seq` room for `num_tokens`; `prefix`, just found for it, counts as computed."""
        assert seq.num_reserved_blocks == 0, seq
        assert self.can_reserve(num_tokens, prefix), (num_tokens, self.num_reserved_blocks)
        if prefix:
            self._prefixes.pin(prefix)
            seq.block_table = list(prefix)
            seq.num_shared_blocks = len(prefix)
            seq.num_computed_tokens = seq.num_sound_tokens = len(prefix) * self.block_size
        seq.num_reserved_blocks = self.blocks_for(num_tokens)
        self._num_reserved += seq.num_reserved_blocks - seq.num_shared_blocks

    def can_grow(self, seq: Sequence, num_tokens: int) -> bool:
        """Whether `seq` can hold `num_tokens` more computed tokens."""
        beyond = self.blocks_for(seq.num_computed_tokens + num_tokens) - seq.num_reserved_blocks
        return beyond <= self.num_blocks - self.num_reserved_blocks

    def grow(self, seq: Sequence, num_tokens: int) -> list[int]:
        """Give `seq` room for `num_tokens` more computed tokens; return the blocks added."""
        needed = self.blocks_for(seq.num_computed_tokens + num_tokens)
        if needed > seq.num_reserved_blocks:
            assert self.can_grow(seq, num_tokens), seq
            self._num_reserved += needed - seq.num_reserved_blocks
            seq.num_reserved_blocks = needed
        new_blocks = [self._take() for _ in range(needed - len(seq.block_table))]
        seq.block_table += new_blocks
        return new_blocks

    def free(self, seq: Sequence) -> None:
        """Take back everything that `seq` holds or was promised; cache what is sound of it."""
        num_whole = seq.num_sound_tokens // self.block_size  # blocks, the shared ones included
        table, shared = seq.block_table, self._shared(seq)
        first_kept = num_whole
        if self.looks_up(seq) and self._prefixes.are_cached(shared):
            num_present = self._prefixes.insert(seq.token_ids, table[:num_whole], seq.namespace)
            first_kept = num_present // self.block_size
        is_all_sound = seq.num_sound_tokens == seq.num_computed_tokens
        self._free_blocks(table[num_whole:], are_dirty=not is_all_sound)
        self._free_blocks(table[len(shared) : first_kept])
        self._let_go(seq, shared)

    def free_failed(self, seq: Sequence, *, distrusts_prefix: bool) -> None:
        """Take back everything of a sequence whose step failed; none of its own is cached.

        `distrusts_prefix`: what it shared may be the cause, and is forgotten too.
        """
        shared = self._shared(seq)
        self._free_blocks(seq.block_table[len(shared) :], are_dirty=True)
        if distrusts_prefix:
            self._free_blocks(self._prefixes.distrust(shared), are_dirty=True)
        self._let_go(seq, shared)

    def clear_cache(self) -> None:
        """Forget every prefix that nobody holds."""
        self._free_blocks(
            [self._prefixes.evict() for _ in range(self._prefixes.num_unpinned_blocks)]
        )

    def take_dirty(self) -> list[int]:
        """Return blocks that must be zeroed before the next step reads any new one.

        What is past a sequence's end is masked, but a masked NaN would still spoil the sum.
        """
        dirty, self._dirty = self._dirty, []
        return dirty

    def put_back_dirty(self, blocks: list[int]) -> None:
        """Have `take_dirty` return blocks again that couldn't be zeroed."""
        self._dirty += blocks

    def _shared(self, seq: Sequence) -> list[int]:
        return seq.block_table[: seq.num_shared_blocks]

    def _let_go(self, seq: Sequence, shared: list[int]) -> None:
        self._free_blocks(self._prefixes.unpin(shared), are_dirty=True)
        self._num_reserved -= seq.num_reserved_blocks - len(shared)
        seq.num_reserved_blocks = seq.num_shared_blocks = 0
        seq.num_computed_tokens = seq.num_sound_tokens = 0
        seq.block_table = []

    def _free_blocks(self, blocks: list[int], *, are_dirty: bool = False) -> None:
        self._free += reversed(blocks)
        if are_dirty:
            self._dirty += blocks

    def _take(self) -> int:
        return self._free.pop() if self._free else self._prefixes.evict()

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Assert that every block is free, cached, or held as often as counted. For tests."""
        sequences = list(sequences)
        own = Counter(b for seq in sequences for b in seq.block_table[seq.num_shared_blocks :])
        shared = Counter(b for seq in sequences for b in self._shared(seq))
        self._prefixes.check_integrity(shared)
        free = set(self._free)
        assert len(free) == len(self._free), "a block is on the free list twice"
        assert not free & own.keys(), "a block is both free and held"
        assert not free & shared.keys(), "a block is both free and shared"
        assert not own.keys() & shared.keys(), "a block is shared unbeknown to its owner"
        for block, count in own.items():
            assert count == 1, f"block {block} has {count} owners"
        num_known = len(free) + len(own) + self._prefixes.num_blocks
        assert num_known == self.num_blocks, "a block was lost"
        assert self._num_reserved == sum(
            seq.num_reserved_blocks - seq.num_shared_blocks for seq in sequences
        )
        assert self.num_reserved_blocks <= self.num_blocks, "promised more than there is"
        for seq in sequences:
            assert len(seq.block_table) <= seq.num_reserved_blocks, seq
            assert seq.num_computed_tokens <= len(seq.block_table) * self.block_size, seq
            assert seq.num_sound_tokens <= seq.num_computed_tokens, seq
