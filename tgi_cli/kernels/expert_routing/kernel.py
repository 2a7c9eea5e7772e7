"""Routing to experts in Triton: `expert_routing/__init__.py` has the formulas.

`route`: one program for each token, whose sums are trees over a fixed block, so that a token's bits
don't depend on the others.
`sort_by_expert`: one program for each expert counts the pairs of all experts, so that it knows
where its own begin, and writes those. Both are bound by their launch: the largest step has some
ten thousand pairs, which come from the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

_LOWEST = tl.constexpr(-1e38)  # of logits; what is below, or no number, counts as this
_PAIRS = 1024  # that a program of `sort_by_expert` looks at in one turn


@triton.jit
def _route_kernel(
    logits_ptr,
    weights_ptr,
    experts_ptr,
    logits_stride,
    num_experts,
    top_k,
    RENORMALISE: tl.constexpr,
    BLOCK: tl.constexpr,
    PLACES: tl.constexpr,
):
    expert = tl.arange(0, BLOCK)  # BLOCK is the next power of two from the number of experts up
    row = tl.program_id(0).to(tl.int64)
    is_left = expert < num_experts
    logits = tl.load(logits_ptr + row * logits_stride + expert, mask=is_left, other=_LOWEST)
    logits = logits.to(tl.float32)
    logits = tl.where(logits > _LOWEST, tl.minimum(logits, -_LOWEST), _LOWEST)  # NaNs, too
    scores = tl.where(is_left, tl.exp(logits - tl.max(logits)), 0.0)

    place = tl.arange(0, PLACES)  # PLACES is the next power of two from top_k up
    weights = tl.zeros((PLACES,), tl.float32)
    experts = tl.zeros((PLACES,), tl.int32)
    for chosen in range(top_k):
        highest = tl.max(tl.where(is_left, logits, _LOWEST))
        best = tl.min(tl.where(is_left & (logits == highest), expert, BLOCK))
        score = tl.sum(tl.where(expert == best, scores, 0.0))
        weights = tl.where(place == chosen, score, weights)
        experts = tl.where(place == chosen, best, experts)
        is_left = is_left & (expert != best)
    weights /= tl.sum(weights) if RENORMALISE else tl.sum(scores)
    tl.store(weights_ptr + row * top_k + place, weights, mask=place < top_k)
    tl.store(experts_ptr + row * top_k + place, experts, mask=place < top_k)


@triton.jit(do_not_specialize=["num_pairs", "num_tiles"])
def _sort_by_expert_kernel(
    experts_ptr,
    pairs_ptr,
    tiles_ptr,
    num_pairs,
    num_tiles,
    num_experts,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    expert = tl.program_id(0)
    lane = tl.arange(0, PAIRS)
    counts = tl.zeros((BLOCK,), tl.int32)  # BLOCK is a power of two above the number of experts
    for begin in range(0, num_pairs, PAIRS):
        pair = begin + lane
        each = tl.load(experts_ptr + pair, mask=pair < num_pairs, other=-1)
        counts += tl.histogram(tl.where(each < 0, BLOCK - 1, each), BLOCK)
    bins = tl.arange(0, BLOCK)
    tiles = (counts + ROWS - 1) // ROWS
    first_tile = tl.sum(tl.where(bins < expert, tiles, 0))
    my_tiles = tl.sum(tl.where(bins == expert, tiles, 0))

    num_mine = 0
    for begin in range(0, num_pairs, PAIRS):
        pair = begin + lane
        each = tl.load(experts_ptr + pair, mask=pair < num_pairs, other=-1)
        is_mine = each == expert
        place = first_tile * ROWS + num_mine + tl.cumsum(is_mine.to(tl.int32), 0) - 1
        tl.store(pairs_ptr + place, pair, mask=is_mine)
        num_mine += tl.sum(is_mine.to(tl.int32))
    row = tl.arange(0, ROWS)
    place = num_mine + row
    is_missing = place < my_tiles * ROWS
    tl.store(pairs_ptr + first_tile * ROWS + place, num_pairs + row * 0, mask=is_missing)
    for begin in range(0, my_tiles, PAIRS):
        tile = begin + lane
        tl.store(tiles_ptr + first_tile + tile, expert + lane * 0, mask=tile < my_tiles)
    if expert == num_experts - 1:
        for begin in range(first_tile + my_tiles, num_tiles, PAIRS):
            tile = begin + lane
            tl.store(tiles_ptr + tile, lane * 0 - 1, mask=tile < num_tiles)


def route(logits: Tensor, weights: Tensor, experts: Tensor, *, renormalise: bool) -> None:
    """Write the weights and experts [T, top_k] of `logits` [T, E]."""
    num_rows, num_experts = logits.shape
    assert logits.stride(1) == 1, logits.stride()
    assert weights.is_contiguous()
    assert experts.is_contiguous()
    if num_rows:
        block = triton.next_power_of_2(num_experts)
        _route_kernel[(num_rows,)](
            logits,
            weights,
            experts,
            logits.stride(0),
            num_experts,
            weights.shape[1],
            RENORMALISE=renormalise,
            BLOCK=block,
            PLACES=triton.next_power_of_2(weights.shape[1]),
            num_warps=min(max(block // 256, 1), 4),
        )


def sort_by_expert(
    experts: Tensor, num_experts: int, rows: int, pairs: Tensor, tiles: Tensor
) -> None:
    """Write which pairs of `experts` [T, top_k] each tile has, and which expert."""
    assert experts.is_contiguous()
    _sort_by_expert_kernel[(num_experts,)](
        experts,
        pairs,
        tiles,
        experts.numel(),
        len(tiles),
        num_experts,
        ROWS=rows,
        PAIRS=_PAIRS,
        BLOCK=triton.next_power_of_2(num_experts + 1),
        num_warps=4,
    )
