"""Which token prefixes have their keys and values in KV blocks already, and which go first.

A tree of whole blocks: a node is one block, its key the block's token ids, its path from the root
the whole prefix, so that a match is never a matter of hashes. A namespace has a tree of its own:
what computes the keys and values besides the ids (an adapter) belongs into its name.

Sequences *pin* the nodes that they share. A pinned node has pinned ancestors, so whatever isn't
pinned can be given up, leaf by leaf, least recently used first. The cache knows nothing of free
or private blocks: `BlockManager` is its only user, and decides what is sound enough to insert.

Radix tree of prefixes: Zheng et al., SGLang, NeurIPS 2024. Lengths are tokens; no tensors here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter

_Key = tuple[int, ...]


class _Node:
    __slots__ = ("block", "children", "is_cached", "key", "last_used", "num_pins", "parent")

    def __init__(self, key: _Key, block: int, parent: _Node | None) -> None:
        self.key = key
        self.block = block
        self.parent = parent
        self.children: dict[_Key, _Node] = {}
        self.num_pins = 0
        self.last_used = 0  # ticks of the cache's own clock: one for each use
        self.is_cached = True  # false once it was distrusted: in no tree, but perhaps still pinned

    @property
    def is_evictable(self) -> bool:
        return self.is_cached and not self.num_pins and not self.children


class PrefixCache:
    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._roots: dict[str, _Node] = {}  # by namespace
        self._nodes: dict[int, _Node] = {}  # by block; those in a tree, and those still pinned
        self._num_pinned = 0
        self._ticks = 0
        self._order = 0  # of entries into the heap: nodes don't compare
        # Evictable nodes by their last use. An entry that no longer says the truth is skipped.
        self._leaves: list[tuple[int, int, _Node]] = []

    @property
    def num_blocks(self) -> int:
        """Blocks that are cached, or were and are still pinned."""
        return len(self._nodes)

    @property
    def num_pinned_blocks(self) -> int:
        return self._num_pinned

    @property
    def num_unpinned_blocks(self) -> int:
        """Blocks that `evict` can give."""
        return len(self._nodes) - self._num_pinned

    def find(self, token_ids: list[int], num_tokens: int, namespace: str = "") -> list[int]:
        """Return the blocks of the longest cached prefix of the first `num_tokens` tokens."""
        blocks: list[int] = []
        node = self._roots.get(namespace)
        while node is not None:
            start = len(blocks) * self._block_size
            if start + self._block_size > num_tokens:
                break
            node = node.children.get(tuple(token_ids[start : start + self._block_size]))
            if node is not None:
                blocks.append(node.block)
        return blocks

    def count_unpinned(self, blocks: Iterable[int]) -> int:
        return sum(self._nodes[block].num_pins == 0 for block in blocks)

    def pin(self, blocks: Iterable[int]) -> None:
        """Hold a prefix that was just found; no eviction takes it until it is unpinned."""
        for block in blocks:
            node = self._nodes[block]
            assert node.is_cached, block
            node.num_pins += 1
            self._num_pinned += node.num_pins == 1

    def unpin(self, blocks: Iterable[int]) -> list[int]:
        """Let go of a prefix; return those blocks that no tree and nobody else has any more."""
        self._ticks += 1
        released: list[int] = []
        for block in blocks:
            node = self._nodes[block]
            assert node.num_pins > 0, block
            node.num_pins -= 1
            node.last_used = self._ticks
            if node.num_pins == 0:
                self._num_pinned -= 1
                if not node.is_cached:
                    del self._nodes[block]
                    released.append(block)
            self._note_leaf(node)
        return released

    def are_cached(self, blocks: Iterable[int]) -> bool:
        """Whether none of these blocks, once found here, was distrusted since."""
        return all(self._nodes[block].is_cached for block in blocks)

    def insert(self, token_ids: list[int], blocks: list[int], namespace: str = "") -> int:
        """Add the prefix that `blocks` hold, all of them whole; return how much was there.

        That many tokens keep the blocks that the tree has, and the caller's are duplicates; the
        rest of `blocks` belongs to the cache now.
        """
        if not blocks:
            return 0
        self._ticks += 1
        node = self._roots.get(namespace)
        if node is None:
            node = self._roots[namespace] = _Node((), -1, None)
        num_present = 0
        for index, block in enumerate(blocks):
            start = index * self._block_size
            key = tuple(token_ids[start : start + self._block_size])
            assert len(key) == self._block_size, (start, len(token_ids))
            child = node.children.get(key)
            if child is None:
                assert block not in self._nodes, block
                child = node.children[key] = self._nodes[block] = _Node(key, block, node)
            else:
                num_present += self._block_size
            node = child
            node.last_used = self._ticks
        self._note_leaf(node)
        return num_present

    def evict(self) -> int:
        """Give up the leaf that nobody has used for longest; return its block."""
        assert self.num_unpinned_blocks > 0, "nothing can be given up"
        while True:
            last_used, _, node = heapq.heappop(self._leaves)
            if node.is_evictable and node.last_used == last_used:
                self._detach(node)
                return node.block

    def distrust(self, blocks: list[int]) -> list[int]:
        """Forget a pinned prefix and all that goes on from it; return what nobody has pinned.

        Whoever has pinned some of it goes on with it; `unpin` returns it when the last lets go.
        """
        if not blocks or not self._nodes[blocks[0]].is_cached:
            return []  # another has distrusted it already
        released: list[int] = []
        pending = [self._nodes[blocks[0]]]
        while pending:
            node = pending.pop()
            pending += node.children.values()
            self._detach(node)
            if node.block not in self._nodes:
                released.append(node.block)
        return released

    def _detach(self, node: _Node) -> None:
        """Take a node out of its tree; it stays known while it is pinned."""
        node.is_cached = False
        if node.num_pins == 0:
            del self._nodes[node.block]
        parent = node.parent
        assert parent is not None, "a root isn't detached"
        parent.children.pop(node.key, None)
        if parent.parent is not None:
            self._note_leaf(parent)

    def _note_leaf(self, node: _Node) -> None:
        if not node.is_evictable:
            return
        if len(self._leaves) > 2 * len(self._nodes) + 64:  # mostly entries to be skipped
            leaves = [other for other in self._nodes.values() if other.is_evictable]
            self._leaves = [(other.last_used, i, other) for i, other in enumerate(leaves)]
            heapq.heapify(self._leaves)
            self._order = len(leaves)
        heapq.heappush(self._leaves, (node.last_used, self._order, node))
        self._order += 1

    def check_integrity(self, pins: Counter[int]) -> None:
        """Assert that the trees are whole and that `pins` of each block are counted. For tests."""
        reached: dict[int, _Node] = {}
        pending = list(self._roots.values())
        while pending:
            node = pending.pop()
            for key, child in node.children.items():
                assert child.key == key, child.block
                assert child.parent is node, child.block
                assert child.is_cached, child.block
                assert node.parent is None or node.num_pins >= child.num_pins, "an unpinned parent"
                assert node.parent is None or node.last_used >= child.last_used, child.block
                assert child.block not in reached, "a block is in the trees twice"
                reached[child.block] = child
                pending.append(child)
        assert reached == {b: node for b, node in self._nodes.items() if node.is_cached}
        for block, node in self._nodes.items():
            assert node.block == block
            assert node.num_pins == pins[block], f"block {block}: {node.num_pins}, {pins[block]}"
            assert node.is_cached or node.num_pins, "a forgotten block that nobody holds"
        assert self._num_pinned == sum(node.num_pins > 0 for node in self._nodes.values())
        noted = {node.block for used, _, node in self._leaves if used == node.last_used}
        assert noted >= {block for block, node in self._nodes.items() if node.is_evictable}
