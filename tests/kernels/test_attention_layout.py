"""How a step is cut into tiles for the Triton kernels; nothing here runs one."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_cli.kernels.paged_attention import Span
from tgi_cli.kernels.paged_attention.layout import FULL_GPU, Heads, Layout, lay_out
from tgi_cli.kernels.paged_attention.tuned import CHUNK, SPLIT_ROWS

MAX_CONTEXT = 4096
WHOLE_ROWS = 128


def spans_of(lengths: list[tuple[int, int]]) -> list[Span]:
    spans, start = [], 0
    for row, (context, new) in enumerate(lengths):
        spans.append(Span(start, start + new, context, row))
        start += new
    return spans


def layout_of(
    lengths: list[tuple[int, int]], heads: Heads, window: int | None, max_lines: int
) -> Layout:
    return lay_out(
        spans_of(lengths),
        window,
        heads,
        whole_rows=WHOLE_ROWS,
        max_lines=max_lines,
        max_context=MAX_CONTEXT,
    )


def rows_of(layout: Layout, tiles: np.ndarray, tile_rows: int, heads: Heads) -> list:
    """Return the (sequence, row) pairs that `tiles` compute."""
    return [
        (int(sequence), row)
        for sequence, first_row, _, _ in tiles
        for row in range(
            first_row,
            min(first_row + tile_rows, layout.sequences[sequence, 1] * heads.group_size),
        )
    ]


lengths = st.lists(
    st.tuples(st.integers(1, MAX_CONTEXT), st.integers(1, 300)).map(lambda x: (max(x), min(x))),
    min_size=1,
    max_size=8,
)
all_heads = st.sampled_from([Heads(1, 1), Heads(9, 3), Heads(32, 8), Heads(70, 1)])
windows = st.none() | st.integers(1, 1000)
rooms = st.integers(0, 3000)


@settings(max_examples=60, deadline=None)
@given(lengths, all_heads, windows, rooms)
def test_each_row_is_computed_once(lengths, heads, window, max_lines):
    layout = layout_of(lengths, heads, window, max_lines)

    rows = rows_of(layout, layout.whole, WHOLE_ROWS, heads)
    rows += rows_of(layout, layout.split, SPLIT_ROWS, heads)

    expected = [
        (index, row)
        for index, (_, new) in enumerate(lengths)
        for row in range(new * heads.group_size)
    ]
    assert sorted(rows) == expected


@settings(max_examples=60, deadline=None)
@given(lengths, all_heads, windows, rooms)
def test_partial_results_share_no_line_and_stay_in_their_room(lengths, heads, window, max_lines):
    layout = layout_of(lengths, heads, window, max_lines)

    taken: list[tuple[int, int]] = []
    for sequence, first_row, line, _ in layout.split[layout.split[:, 0] < len(lengths)].tolist():
        num_tokens, context = layout.sequences[sequence, 1:3].tolist()
        rows = min(num_tokens * heads.group_size - first_row, SPLIT_ROWS)
        assert rows <= layout.split_rows
        first = context - num_tokens + first_row // heads.group_size
        last = context - num_tokens + (first_row + rows - 1) // heads.group_size
        first_chunk = 0 if window is None else max(0, first + 1 - window) // CHUNK
        chunks = last // CHUNK + 1 - first_chunk
        taken.append((line, line + rows * chunks * heads.num_kv_heads))
    taken.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(taken))
    assert all(start >= 0 and end <= max_lines for start, end in taken)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, MAX_CONTEXT), min_size=1, max_size=20), all_heads, windows, rooms)
def test_a_step_of_decodes_has_a_shape_that_depends_on_their_number_only(
    contexts, heads, window, max_lines
):
    layout = layout_of([(context, 1) for context in contexts], heads, window, max_lines)
    longest = layout_of([(MAX_CONTEXT, 1)] * len(contexts), heads, window, max_lines)

    assert layout.split.shape == longest.split.shape
    assert layout.whole.shape == longest.whole.shape
    assert (layout.num_splits, layout.split_rows) == (longest.num_splits, longest.split_rows)


def test_few_long_prompts_are_split_and_many_are_not():
    heads = Heads(32, 8)

    few = layout_of([(4000, 20)], heads, None, 10**6)
    many = layout_of([(4000, 300)] * 20, heads, None, 10**6)

    assert len(few.split)
    assert not len(few.whole)
    assert not len(many.split)
    assert len(many.whole) * heads.num_kv_heads >= FULL_GPU


def test_the_longest_prompts_start_first():
    layout = layout_of([(200, 200), (3000, 250), (900, 300)] * 20, Heads(32, 8), None, 0)

    keys = layout.sequences[layout.whole[:, 0], 2] - layout.sequences[layout.whole[:, 0], 1]
    assert keys[0] == 2750
    assert keys[-1] == 0
