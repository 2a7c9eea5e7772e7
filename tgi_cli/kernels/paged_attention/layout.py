"""Cut a step into the tiles that the Triton kernels take: who computes which rows, and how.

Either kernel gives a row the same bits, so this is free to choose by what is fast: single tokens
are split over their keys, prompts are not, unless there are too few of them to fill a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .tuned import CHUNK, SPLIT_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import Span

FULL_GPU = 264  # programs: two for each multiprocessor of an H100
MAX_PROGRAMS = 8192  # of a launch whose grid doesn't know the contexts; most return at once


@dataclass(frozen=True, slots=True)
class Heads:
    num_heads: int
    num_kv_heads: int

    @property
    def group_size(self) -> int:
        return self.num_heads // self.num_kv_heads


@dataclass(frozen=True, slots=True)
class Layout:
    """One step's tiles: `attend_kernel.py` says what their columns are."""

    sequences: NDArray[np.int32]  # [B + 1, 4]; the last is an empty one, of tiles that do nothing
    split: NDArray[np.int32]  # [n, 4]
    whole: NDArray[np.int32]  # [m, 4]
    num_splits: int  # programs that share the chunks of a split tile
    split_rows: int  # the most that a split tile has


def lay_out(
    spans: list[Span],
    sliding_window: int | None,
    heads: Heads,
    *,
    whole_rows: int,
    max_lines: int,
    max_context: int,
) -> Layout:
    """Return the tiles of `spans`.

    `max_lines`: what the partial results have room for; what exceeds it is computed whole.
    A step of single tokens has a shape that depends on their number and `max_context` alone, as
    CUDA graphs need it; there, a sequence of context 0 is a row to fill up with.
    """
    numbers = [(span.start, span.num_tokens, span.context_len, span.row) for span in spans]
    sequences = np.array([*numbers, (0, 0, 0, 0)], dtype=np.int32)
    num_tokens, context = sequences[:-1, 1], sequences[:-1, 2]
    is_single = num_tokens == 1
    if is_single.all():
        return _singles(sequences, sliding_window, heads, whole_rows, max_lines, max_context)
    whole = _tiles(sequences, np.flatnonzero(~is_single), heads, whole_rows)
    wants_split = is_single
    if len(whole) * heads.num_kv_heads < FULL_GPU:
        wants_split = is_single | (context > CHUNK)
    split = _tiles(sequences, np.flatnonzero(wants_split), heads, SPLIT_ROWS)
    is_held = _give_lines(sequences, split, sliding_window, heads, max_lines)
    is_split = np.append(wants_split, False) & is_held
    split = split[is_split[split[:, 0]]]
    whole = _tiles(sequences, np.flatnonzero(~is_split[:-1]), heads, whole_rows)
    rows = _num_rows(sequences, split, heads, SPLIT_ROWS)
    chunks = _num_chunks(sequences, split, sliding_window, heads)
    return Layout(
        sequences,
        split,
        _longest_first(sequences, whole),
        num_splits=_num_splits(len(split), heads, int(chunks.max(initial=1))),
        split_rows=int(rows.max(initial=0)),
    )


def _singles(
    sequences: NDArray[np.int32],
    sliding_window: int | None,
    heads: Heads,
    whole_rows: int,
    max_lines: int,
    max_context: int,
) -> Layout:
    num_sequences = len(sequences) - 1
    split = _tiles(sequences, np.arange(num_sequences), heads, SPLIT_ROWS)
    max_chunks = -(-max_context // CHUNK)
    if sliding_window is not None:
        max_chunks = min(max_chunks, (sliding_window - 2) // CHUNK + 2)
    whole = split[:0]
    if num_sequences * max_chunks * heads.num_heads > max_lines:
        whole = _tiles(sequences, np.arange(num_sequences), heads, whole_rows)
    is_held = _give_lines(sequences, split, sliding_window, heads, max_lines)
    whole[is_held[whole[:, 0]], 0] = num_sequences
    split[~is_held[split[:, 0]], 0] = num_sequences
    return Layout(
        sequences,
        split,
        whole,
        num_splits=_num_splits(len(split), heads, max_chunks),
        split_rows=min(heads.group_size, SPLIT_ROWS),
    )


def _tiles(
    sequences: NDArray[np.int32], chosen: NDArray[np.int64], heads: Heads, rows: int
) -> NDArray[np.int32]:
    """Return the tiles [n, 4] of `rows` rows each that the chosen sequences are cut into."""
    num_tiles = -(-sequences[chosen, 1] * heads.group_size // rows)
    tiles = np.zeros((num_tiles.sum(), 4), dtype=np.int32)
    tiles[:, 0] = np.repeat(chosen, num_tiles)
    before = np.cumsum(num_tiles) - num_tiles
    tiles[:, 1] = (np.arange(len(tiles)) - np.repeat(before, num_tiles)) * rows
    return tiles


def _num_rows(
    sequences: NDArray[np.int32], tiles: NDArray[np.int32], heads: Heads, rows: int
) -> NDArray[np.int32]:
    left: NDArray[np.int32] = sequences[tiles[:, 0], 1] * heads.group_size - tiles[:, 1]
    return left.clip(max=rows)


def _num_chunks(
    sequences: NDArray[np.int32],
    tiles: NDArray[np.int32],
    sliding_window: int | None,
    heads: Heads,
) -> NDArray[np.int64]:
    """Return how many chunks of keys the rows of each split tile see."""
    num_cached = sequences[tiles[:, 0], 2] - sequences[tiles[:, 0], 1]
    last_row = tiles[:, 1] + _num_rows(sequences, tiles, heads, SPLIT_ROWS) - 1
    end = num_cached + last_row // heads.group_size + 1
    first = np.zeros(len(tiles), dtype=np.int64)
    if sliding_window is not None:
        first = num_cached + tiles[:, 1] // heads.group_size + 1 - sliding_window
    chunks: NDArray[np.int64] = -(-end // CHUNK) - np.maximum(first, 0) // CHUNK
    return chunks


def _give_lines(
    sequences: NDArray[np.int32],
    split: NDArray[np.int32],
    sliding_window: int | None,
    heads: Heads,
    max_lines: int,
) -> NDArray[np.bool_]:
    """Write each tile's first line of the partial results; return whose have room, [B + 1].

    The longest contexts come first: they gain most.
    """
    owners = split[:, 0]
    rows = _num_rows(sequences, split, heads, SPLIT_ROWS).astype(np.int64)
    lines = rows * heads.num_kv_heads * _num_chunks(sequences, split, sliding_window, heads)
    before = np.cumsum(lines) - lines
    first_tiles = np.searchsorted(owners, owners)
    of_sequence = np.bincount(owners, weights=lines, minlength=len(sequences)).astype(np.int64)
    order = np.argsort(-sequences[:, 2], kind="stable")
    ends = np.empty(len(sequences), dtype=np.int64)
    ends[order] = np.cumsum(of_sequence[order])
    is_held: NDArray[np.bool_] = ends <= max_lines
    first = (ends - of_sequence)[owners] + before - before[first_tiles]
    split[:, 2] = np.where(is_held[owners], first, 0)
    return is_held


def _longest_first(sequences: NDArray[np.int32], tiles: NDArray[np.int32]) -> NDArray[np.int32]:
    """Order tiles so that those with the most keys don't start last."""
    num_cached = sequences[tiles[:, 0], 2] - sequences[tiles[:, 0], 1]
    return tiles[np.argsort(-(num_cached + tiles[:, 1]), kind="stable")]


def _num_splits(num_tiles: int, heads: Heads, num_chunks: int) -> int:
    return max(1, min(num_chunks, MAX_PROGRAMS // max(1, num_tiles * heads.num_kv_heads)))
