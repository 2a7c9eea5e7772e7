"""Who waits for admission, in which order, and who of them may go next.

Strictly first come, first served: the first that doesn't fit stops the selection, and a smaller
one behind it doesn't overtake. `next_batch` promises blocks to those that it takes, from the
prefix cache where it can; rows and steps are the scheduler's business. Spec: scheduling.md
section 2. A prefill budget is tokens that a step may compute of the newcomers' prompts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from tgi_cli.runtime.engine.block_manager import BlockManager
from tgi_cli.runtime.engine.sequence import Sequence

Newcomer = tuple[Sequence, int]  # and how many of its tokens the step computes


class WaitingQueue:
    def __init__(
        self, blocks: BlockManager, *, reserved_new_tokens: int, prefill_chunking: bool
    ) -> None:
        self._blocks = blocks
        self._reserved_new_tokens = reserved_new_tokens
        self._prefill_chunking = prefill_chunking
        self._waiting: deque[Sequence] = deque()  # by arrival

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting)

    def append(self, seq: Sequence) -> None:
        self._waiting.append(seq)

    def put_back(self, seq: Sequence) -> None:
        """Queue a sequence that was admitted once in front of all others."""
        self._waiting.appendleft(seq)

    def remove(self, seq: Sequence) -> None:
        self._waiting.remove(seq)

    def next_batch(self, *, min_size: int, max_size: int, prefill_budget: int) -> list[Newcomer]:
        """Take the first `min_size` to `max_size` that fit, with blocks promised; or nobody."""
        if min(len(self._waiting), max_size) < min_size:
            return []
        taken: list[Newcomer] = []
        while self._waiting and len(taken) < max_size and prefill_budget > 0:
            num_tokens = self._reserve(self._waiting[0], prefill_budget, is_first=not taken)
            if num_tokens == 0:
                break
            taken.append((self._waiting.popleft(), num_tokens))
            prefill_budget -= num_tokens
        if len(taken) < min_size:
            for seq, _ in reversed(taken):
                self._blocks.free(seq)
                self.put_back(seq)
            return []
        return taken

    def _reserve(self, seq: Sequence, prefill_budget: int, *, is_first: bool) -> int:
        """Promise `seq` its blocks; return how many tokens to compute, 0 if it has to wait."""
        prefix = self._blocks.find_prefix(seq)
        num_tokens = seq.num_tokens - len(prefix) * self._blocks.block_size
        # Whole prompts only, without chunking; but one longer than any step could never run.
        if num_tokens > prefill_budget and not (self._prefill_chunking or is_first):
            return 0
        # The last new token's keys and values are never needed.
        promise = seq.num_tokens - 1 + min(seq.num_remaining_tokens, self._reserved_new_tokens)
        if not self._blocks.can_reserve(promise, prefix):
            return 0
        self._blocks.reserve(seq, promise, prefix)
        return min(num_tokens, prefill_budget)
