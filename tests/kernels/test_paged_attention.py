from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_cli.kernels import native
from tgi_cli.kernels.paged_attention import BLOCK_SIZE, Implementation, Span, reference
from tgi_cli.kernels.paged_attention.gathered import GatheredAttention
from tgi_cli.kernels.paged_attention.native import NativeAttention

pytestmark = pytest.mark.usefixtures("instruction_set")

NUM_BLOCKS = 200
needs_native = pytest.mark.skipif(not native.is_available(), reason="no compiler at install")
IMPLEMENTATIONS = [
    pytest.param("gathered", id="gathered"),
    pytest.param("native", id="native", marks=needs_native),
]


def make(name: str, block_size: int) -> Implementation:
    return NativeAttention() if name == "native" else GatheredAttention(block_size)


def fill(
    implementation: Implementation, keys_values: torch.Tensor, dtype: torch.dtype = torch.float32
) -> Any:
    """Return a cache of the implementation's own that holds [blocks, 2, Hkv, block_size, D]."""
    num_blocks, _, num_kv_heads, block_size, head_dim = keys_values.shape
    cache = implementation.new_cache(num_blocks, num_kv_heads, head_dim, dtype)
    tokens = keys_values.permute(0, 3, 1, 2, 4).reshape(-1, 2, num_kv_heads, head_dim).contiguous()
    implementation.store(tokens, cache, torch.arange(num_blocks * block_size))
    return cache


def attend_both(
    name: str,
    lengths: list[tuple[int, int]],
    *,
    block_size: int = 4,
    num_heads: int = 9,
    num_kv_heads: int = 3,
    head_dim: int = 8,
    sliding_window: int | None = None,
    magnitude: float = 1.0,
    soft_cap: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run kernel and reference for sequences of (context_len, num_tokens of the step)."""
    if name == "native":
        block_size = BLOCK_SIZE
    implementation = make(name, block_size)
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_BLOCKS, 2, num_kv_heads, block_size, head_dim)
    keys_values = torch.randn(shape, generator=generator).to(dtype).float()
    order = torch.randperm(NUM_BLOCKS, generator=generator).tolist()
    num_tokens = sum(new for _, new in lengths)
    q = torch.randn(num_tokens, num_heads, head_dim, generator=generator) * magnitude
    max_blocks = max(-(-context // block_size) for context, _ in lengths)
    tables = np.full((len(lengths) + 2, max_blocks), 10**6)  # what isn't held must not be read
    spans, start = [], 0
    for row, (context, new) in enumerate(lengths, start=1):
        held = -(-context // block_size)
        tables[row, :held] = [order.pop() for _ in range(held)]
        spans.append(Span(start, start + new, context, row))
        start += new
    scale = head_dim**-0.5

    plan = implementation.plan(spans, tables, sliding_window)
    out = implementation.attend(q, fill(implementation, keys_values, dtype), plan, scale, soft_cap)
    expected = reference.paged_attention(
        q, keys_values, spans, tables.tolist(), scale, sliding_window, soft_cap
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


@needs_native
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [64, 80, 13])
def test_a_16_bit_cache_is_widened_exactly(dtype, head_dim):
    out, expected = attend_both(
        "native", [(70, 1), (45, 45), (100, 7)], head_dim=head_dim, dtype=dtype
    )

    torch.testing.assert_close(out, expected)


@needs_native
@pytest.mark.parametrize("magnitude", [1.0, 300.0])
def test_a_soft_cap_bends_the_scores(magnitude):
    out, expected = attend_both("native", [(70, 70), (9, 1)], soft_cap=20.0, magnitude=magnitude)

    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_16_bit_cache_rounds_as_torch_does(dtype):
    attention, head_dim = NativeAttention(), 64
    special = torch.tensor([0.0, -0.0, 6e-8, 2.9e-8, 3e-8, 6.1e-5, 6.2e-5, 1.00048828125, 65504.0])
    values = torch.cat((special, -special, torch.randn(2**15) * 10.0 ** torch.randn(2**15)))
    values = values.clamp(-65504, 65504)  # larger ones become the largest fp16, not infinity
    num_tokens = -(-len(values) // (2 * head_dim))
    padded = torch.zeros(num_tokens * 2 * head_dim)
    padded[: len(values)] = values
    kv = padded.view(num_tokens, 2, 1, head_dim)
    num_blocks = -(-num_tokens // BLOCK_SIZE)

    cache = attention.new_cache(num_blocks, 1, head_dim, dtype)
    attention.store(kv, cache, torch.arange(num_tokens))

    # keys [D][32], then values [2 panels][32][32]
    parts = cache.blocks.view(num_blocks, 2, head_dim * BLOCK_SIZE)
    keys = parts[:, 0].view(num_blocks, head_dim, BLOCK_SIZE).transpose(1, 2)
    stored_values = parts[:, 1].view(num_blocks, 2, BLOCK_SIZE, 32).transpose(1, 2)
    for stored, expected in ((keys, kv[:, 0, 0]), (stored_values, kv[:, 1, 0])):
        flat = stored.reshape(-1, head_dim)[:num_tokens]
        assert torch.equal(flat.view(torch.int16), expected.to(dtype).view(torch.int16))


def test_similar_contexts_share_a_group_and_unlike_ones_do_not():
    tables = np.zeros((4, 400), dtype=np.int64)
    gathered = GatheredAttention(block_size=4)

    alike = gathered.plan([Span(i, i + 1, 100 + i, i) for i in range(4)], tables, None)
    unlike = gathered.plan([Span(0, 1, 1500, 0), Span(1, 2, 3, 1)], tables, None)

    assert len(alike.decode_groups) == 1
    assert len(unlike.decode_groups) == 2


@needs_native
@pytest.mark.parametrize("sliding_window", [None, 70])
def test_native_bits_depend_neither_on_the_batch_nor_on_the_chunks(sliding_window):
    generator = torch.Generator().manual_seed(2)
    context_len, num_heads, num_kv_heads, head_dim = 301, 6, 2, 24
    shape = (10, 2, num_kv_heads, BLOCK_SIZE, head_dim)
    cache = fill(NativeAttention(), torch.randn(shape, generator=generator), torch.float16)
    q = torch.randn(context_len, num_heads, head_dim, generator=generator)
    tables = np.stack([np.arange(10), np.arange(10)[::-1]]).copy()
    attention = NativeAttention()

    def attend(rows: torch.Tensor, spans: list[Span]) -> torch.Tensor:
        plan = attention.plan(spans, tables, sliding_window)
        return attention.attend(rows, cache, plan, 0.2, 0.0)

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
