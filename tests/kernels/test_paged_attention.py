from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_cli.kernels import native
from tgi_cli.kernels.kv_store import kv_store
from tgi_cli.kernels.paged_attention import Implementation, Span, reference
from tgi_cli.kernels.paged_attention.gathered import GatheredAttention
from tgi_cli.kernels.paged_attention.native import NativeAttention

NUM_BLOCKS = 200
needs_native = pytest.mark.skipif(not native.is_available(), reason="no compiler at install")
IMPLEMENTATIONS = [
    pytest.param(GatheredAttention(), id="gathered"),
    pytest.param(NativeAttention(), id="native", marks=needs_native),
]


def attend_both(
    implementation: Implementation,
    lengths: list[tuple[int, int]],
    *,
    block_size: int = 4,
    num_heads: int = 9,
    num_kv_heads: int = 3,
    head_dim: int = 8,
    sliding_window: int | None = None,
    magnitude: float = 1.0,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run kernel and reference for sequences of (context_len, num_tokens of the step)."""
    generator = torch.Generator().manual_seed(seed)
    cache = torch.randn(NUM_BLOCKS, 2, num_kv_heads, block_size, head_dim, generator=generator)
    order = torch.randperm(NUM_BLOCKS, generator=generator).tolist()
    num_tokens = sum(new for _, new in lengths)
    q = torch.randn(num_tokens, num_heads, head_dim, generator=generator) * magnitude
    kv = torch.randn(num_tokens, 2, num_kv_heads, head_dim, generator=generator)
    max_blocks = max(-(-context // block_size) for context, _ in lengths)
    tables = np.full((len(lengths) + 2, max_blocks), 10**6)  # what isn't held must not be read
    spans, slots, start = [], [], 0
    for row, (context, new) in enumerate(lengths, start=1):
        held = -(-context // block_size)
        tables[row, :held] = [order.pop() for _ in range(held)]
        spans.append(Span(start, start + new, context, row))
        slots += [
            int(tables[row, p // block_size]) * block_size + p % block_size
            for p in range(context - new, context)
        ]
        start += new
    kv_store(kv, cache, torch.tensor(slots))

    plan = implementation.plan(spans, tables, block_size, sliding_window)
    out = implementation.attend(q, kv, cache, plan, head_dim**-0.5)
    expected = reference.paged_attention(
        q, cache, spans, tables.tolist(), head_dim**-0.5, sliding_window
    )
    return out, expected


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("sliding_window", [None, 1, 3, 6, 100])
@pytest.mark.parametrize(
    "lengths",
    [
        [(1, 1)],
        [(17, 1)],
        [(13, 13)],
        [(19, 6)],
        [(5, 1), (31, 1), (8, 1)],
        [(400, 1), (3, 1), (390, 1)],  # too unlike to share a group
        [(9, 1), (11, 4), (6, 6), (12, 1)],
    ],
    ids=str,
)
def test_attention_matches_reference(lengths, sliding_window, implementation):
    out, expected = attend_both(implementation, lengths, sliding_window=sliding_window)

    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(1, 1), (4, 4), (8, 2)])
@pytest.mark.parametrize("magnitude", [1e-3, 40.0])
def test_attention_matches_reference_for_other_head_counts_and_scores(
    num_heads, num_kv_heads, magnitude, implementation
):
    out, expected = attend_both(
        implementation,
        [(6, 1), (140, 3)],
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=72,
        magnitude=magnitude,
    )

    # An error in the last bit of a score is a relative error of its weight.
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * max(1.0, magnitude))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda x: (max(x), min(x))),
        min_size=1,
        max_size=6,
    ),
    block_size=st.integers(1, 5),
    sliding_window=st.none() | st.integers(1, 45),
)
def test_attention_matches_reference_for_any_mixture(
    implementation, lengths, block_size, sliding_window
):
    lengths = [(min(context, 30 * block_size), min(new, 30)) for context, new in lengths]
    lengths = [(context, min(new, context)) for context, new in lengths]

    out, expected = attend_both(
        implementation,
        lengths,
        block_size=block_size,
        sliding_window=sliding_window,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
    )

    torch.testing.assert_close(out, expected)


def test_similar_contexts_share_a_group_and_unlike_ones_do_not():
    tables = np.zeros((4, 400), dtype=np.int64)
    gathered = GatheredAttention()

    alike = gathered.plan([Span(i, i + 1, 100 + i, i) for i in range(4)], tables, 4, None)
    unlike = gathered.plan([Span(0, 1, 1500, 0), Span(1, 2, 3, 1)], tables, 4, None)

    assert len(alike.decode_groups) == 1
    assert len(unlike.decode_groups) == 2


@needs_native
@pytest.mark.parametrize("sliding_window", [None, 70])
def test_native_bits_depend_neither_on_the_batch_nor_on_the_chunks(sliding_window):
    generator = torch.Generator().manual_seed(2)
    context_len, block_size, num_heads, num_kv_heads, head_dim = 201, 4, 6, 2, 24
    cache = torch.randn(60, 2, num_kv_heads, block_size, head_dim, generator=generator)
    q = torch.randn(context_len, num_heads, head_dim, generator=generator)
    tables = np.stack([np.arange(60), np.arange(60)[::-1]]).copy()
    attention = NativeAttention()
    unused = cache[:0, 0]

    def attend(rows: torch.Tensor, spans: list[Span]) -> torch.Tensor:
        plan = attention.plan(spans, tables, block_size, sliding_window)
        return attention.attend(rows, unused, cache, plan, 0.2)

    whole = attend(q, [Span(0, context_len, context_len, 0)])
    for size in (1, 7, 64, 100):
        chunks = [
            attend(q[start : start + size], [Span(0, len(q[start : start + size]), end, 0)])
            for start in range(0, context_len, size)
            for end in [min(start + size, context_len)]
        ]
        assert torch.equal(torch.cat(chunks), whole), size
    neighbours = torch.randn(33, num_heads, head_dim, generator=generator)
    mixed = attend(
        torch.cat((neighbours, q)),
        [Span(0, 33, 120, 1), Span(33, 33 + context_len, context_len, 0)],
    )
    assert torch.equal(mixed[33:], whole)
