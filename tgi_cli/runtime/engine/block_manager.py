"""Own the KV blocks: who holds which, who was promised how many.

A block holds the keys and values of `block_size` tokens. Two numbers are kept apart:

- *reserved*: promised to a sequence at admission, so that it can't run out half-way. The sum of
  all promises never passes the number of blocks: admission can't overcommit.
- *held*: in a sequence's block table. Blocks are handed out as the sequence grows, the one freed
  last first, so that a lightly loaded server touches little memory.

A sequence may grow past its promise only into blocks that nobody was promised; when there are
none the scheduler preempts. No tensors here. Paged KV: Kwon et al., PagedAttention, SOSP 2023.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tgi_cli.runtime.engine.sequence import Sequence


class BlockManager:
    def __init__(self, num_blocks: int, block_size: int) -> None:
        assert num_blocks > 0, num_blocks
        assert block_size > 0, block_size
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks - 1, -1, -1))  # a stack; block 0 is taken first
        self._reference_counts = [0] * num_blocks
        self._num_reserved = 0  # over all sequences

    @property
    def num_used_blocks(self) -> int:
        return self.num_blocks - len(self._free)

    @property
    def num_reserved_blocks(self) -> int:
        return self._num_reserved

    @property
    def num_tokens_capacity(self) -> int:
        return self.num_blocks * self.block_size

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def can_reserve(self, num_tokens: int) -> bool:
        """Whether a new sequence can be promised room for `num_tokens`."""
        return self._num_reserved + self.blocks_for(num_tokens) <= self.num_blocks

    def reserve(self, seq: Sequence, num_tokens: int) -> None:
        assert seq.num_reserved_blocks == 0, seq
        assert self.can_reserve(num_tokens), (num_tokens, self._num_reserved)
        seq.num_reserved_blocks = self.blocks_for(num_tokens)
        self._num_reserved += seq.num_reserved_blocks

    def can_grow(self, seq: Sequence, num_tokens: int) -> bool:
        """Whether `seq` can hold `num_tokens` more computed tokens."""
        beyond = self.blocks_for(seq.num_computed_tokens + num_tokens) - seq.num_reserved_blocks
        return beyond <= self.num_blocks - self._num_reserved

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
        """Take back everything that `seq` holds or was promised."""
        for block in reversed(seq.block_table):
            self._reference_counts[block] -= 1
            assert self._reference_counts[block] >= 0, block
            if self._reference_counts[block] == 0:
                self._free.append(block)
        seq.block_table = []
        self._num_reserved -= seq.num_reserved_blocks
        seq.num_reserved_blocks = 0

    def _take(self) -> int:
        block = self._free.pop()
        assert self._reference_counts[block] == 0, block
        self._reference_counts[block] = 1
        return block

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Assert that every block is free or held exactly as often as counted. For tests."""
        sequences = list(sequences)
        held = Counter(block for seq in sequences for block in seq.block_table)
        free = set(self._free)
        assert len(free) == len(self._free), "a block is on the free list twice"
        assert not free & held.keys(), "a block is both free and held"
        assert len(free) + len(held) == self.num_blocks, "a block was lost"
        for block, count in enumerate(self._reference_counts):
            assert count == held[block], f"block {block}: counted {count}, held {held[block]}"
        assert self._num_reserved == sum(seq.num_reserved_blocks for seq in sequences)
        assert self._num_reserved <= self.num_blocks, "promised more than there is"
        for seq in sequences:
            assert len(seq.block_table) <= seq.num_reserved_blocks, seq
            assert seq.num_computed_tokens <= len(seq.block_table) * self.block_size, seq
