"""Paged attention in Triton, interpreted: against the float64 reference, and bit for bit.

A chunk is 256 keys, so contexts lie below, at and above it and its multiples.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.kernels.triton.numbers import DTYPES, assert_near, nans, randn
from tgi_cli.kernels import devices
from tgi_cli.kernels.paged_attention import BLOCK_SIZE, Span, kernel, reference, tuned
from tgi_cli.kernels.paged_attention.layout import Heads, lay_out

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
MAX_CONTEXT = 1024
MAX_LINES = 100_000
THREE_ON_ONE = Heads(3, 1)
_SPLIT, _WHOLE = MAX_LINES, 0  # room for partial results: splits what it can, or nothing


class Case:
    """Sequences of (context_len, tokens of the step) with their queries and a cache of all keys."""

    def __init__(
        self,
        lengths: list[tuple[int, int]],
        *,
        heads: Heads = THREE_ON_ONE,
        head_dim: int = 64,
        dtype: torch.dtype = torch.float16,
        kv_dtype: torch.dtype | None = None,
        window: int | None = None,
        soft_cap: float = 0.0,
        magnitude: float = 1.0,
    ) -> None:
        self.lengths, self.heads, self.window, self.soft_cap = lengths, heads, window, soft_cap
        held = [-(-context // BLOCK_SIZE) for context, _ in lengths]
        num_blocks = sum(held) + 1
        shape = (num_blocks, 2, heads.num_kv_heads, BLOCK_SIZE, head_dim)
        self.cache = randn(*shape).to(kv_dtype or dtype)
        order = np.random.default_rng(0).permutation(num_blocks - 1) + 1
        # What isn't held must not be read, nor block 0, which no sequence has.
        self.cache.view(torch.uint8 if kv_dtype in FP8 else self.cache.dtype)[0] = (
            0x7F if kv_dtype in FP8 else float("nan")
        )
        self.tables = np.full((len(lengths) + 1, MAX_CONTEXT // BLOCK_SIZE), 10**6)
        self.spans, start, used = [], 0, 0
        for row, ((context, new), count) in enumerate(zip(lengths, held, strict=True), start=1):
            self.tables[row, :count] = order[used : used + count]
            self.spans.append(Span(start, start + new, context, row))
            start, used = start + new, used + count
        self.q = (randn(start, heads.num_heads, head_dim, seed=1) * magnitude).to(dtype)
        self.scale = head_dim**-0.5

    def attend(
        self, max_lines: int = _SPLIT, *, q: Tensor | None = None, spans: list[Span] | None = None
    ) -> Tensor:
        """Return [T, H, D] for all spans, or for `spans` with queries `q`."""
        q, spans = self.q if q is None else q, self.spans if spans is None else spans
        head_dim = q.shape[2]
        tiles = tuned.tiles_for(devices.target(), head_dim, is_fp8=self.cache.dtype in FP8)
        layout = lay_out(
            spans,
            self.window,
            self.heads,
            whole_rows=tiles.whole_rows,
            max_lines=max_lines,
            max_context=MAX_CONTEXT,
        )
        step = kernel.Step(
            sequences=torch.from_numpy(layout.sequences),
            block_tables=torch.from_numpy(self.tables.astype(np.int32)),
            split=torch.from_numpy(layout.split) if len(layout.split) else None,
            whole=torch.from_numpy(layout.whole) if len(layout.whole) else None,
            num_splits=layout.num_splits,
            split_rows=layout.split_rows,
            sliding_window=self.window,
        )
        partials = kernel.Partials(nans(max_lines, head_dim), nans(max_lines, 2))
        out = nans(*q.shape, dtype=q.dtype)
        return kernel.attend(q, self.cache, step, partials, self.scale, self.soft_cap, out=out)

    def expected(self) -> Tensor:
        return reference.paged_attention(
            self.q.double(),
            self.cache.double(),
            self.spans,
            self.tables.tolist(),
            self.scale,
            self.window,
            self.soft_cap,
        )

    def last_rows(self) -> tuple[Tensor, list[Span]]:
        """Return the queries and spans of a decode of each sequence's last token."""
        spans = [Span(i, i + 1, span.context_len, span.row) for i, span in enumerate(self.spans)]
        return self.q[[span.end - 1 for span in self.spans]], spans


AROUND_A_CHUNK = [(1, 1), (255, 1), (256, 1), (257, 1), (600, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_lines", [_SPLIT, _WHOLE], ids=["split", "whole"])
def test_decodes_match_reference(dtype, max_lines):
    case = Case(AROUND_A_CHUNK, dtype=dtype)

    out = case.attend(max_lines)

    assert_near(out, case.expected(), eps=2)


@pytest.mark.parametrize(
    ("window", "soft_cap", "max_lines"),
    [
        (1, 0.0, _WHOLE),
        (40, 0.0, _SPLIT),
        (256, 30.0, _SPLIT),
        (256, 30.0, _WHOLE),
        (257, 0.0, _SPLIT),
        (None, 5.0, _SPLIT),
    ],
)
def test_prompts_beside_decodes_match_reference(window, soft_cap, max_lines):
    case = Case([(25, 25), (290, 23), (9, 1), (257, 3)], window=window, soft_cap=soft_cap)

    out = case.attend(max_lines)

    assert_near(out, case.expected(), eps=2)


@pytest.mark.parametrize(
    "heads",
    [Heads(2, 2), Heads(9, 3), Heads(8, 1), Heads(16, 1), Heads(70, 1)],  # 70: more than a tile
    ids=str,
)
def test_groups_of_query_heads_match_reference(heads):
    case = Case([(70, 1), (33, 30)], heads=heads)

    out = case.attend()

    assert_near(out, case.expected(), eps=2)


@pytest.mark.parametrize("max_lines", [_SPLIT, _WHOLE], ids=["split", "whole"])
@pytest.mark.parametrize("head_dim", [16, 80, 96, 128, 256])
def test_head_sizes_match_reference(head_dim, max_lines):
    case = Case([(70, 1), (257, 1)], head_dim=head_dim, dtype=torch.bfloat16)

    out = case.attend(max_lines)

    assert_near(out, case.expected(), eps=2)


@pytest.mark.parametrize("magnitude", [1e-3, 40.0])
def test_flat_and_steep_scores_match_reference(magnitude):
    case = Case([(300, 1), (66, 5)], magnitude=magnitude)

    out = case.attend()

    assert_near(out, case.expected(), eps=2)


@pytest.mark.parametrize("kv_dtype", FP8)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_fp8_cache_is_widened_exactly(kv_dtype, dtype):
    case = Case([(300, 1), (66, 5)], dtype=dtype, kv_dtype=kv_dtype)

    out = case.attend()

    assert_near(out, case.expected(), eps=2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 256, "soft_cap": 5.0, "dtype": torch.bfloat16},
        {"kv_dtype": torch.float8_e4m3fn, "head_dim": 80},
        {"head_dim": 256, "heads": Heads(1, 1)},
    ],
    ids=str,
)
def test_the_last_row_of_a_prompt_has_the_bits_of_its_decode(options):
    case = Case([(530, 2), (256, 3), (270, 22), (20, 20)], **options)
    ends = [span.end - 1 for span in case.spans]
    q, spans = case.last_rows()

    whole = case.attend(_WHOLE)
    split = case.attend(_SPLIT)
    decoded = case.attend(_SPLIT, q=q, spans=spans)

    assert torch.equal(split, whole)
    assert torch.equal(decoded, whole[ends])


@pytest.mark.parametrize("window", [None, 70])
def test_a_prompt_in_chunks_has_the_bits_of_the_whole(window):
    case = Case([(270, 270)], window=window, heads=Heads(2, 1))
    whole = case.attend(_WHOLE)

    for size in (97, 256):
        chunks = []
        for start in range(0, 270, size):
            end = min(start + size, 270)
            span = dataclasses.replace(case.spans[0], start=0, end=end - start, context_len=end)
            chunks.append(case.attend(_WHOLE, q=case.q[start:end], spans=[span]))
        assert torch.equal(torch.cat(chunks), whole), size


def test_a_sequence_has_the_same_bits_alone_and_among_others():
    case = Case([(40, 20), (300, 1), (310, 7), (5, 1)])
    together = case.attend()

    for span in case.spans:
        tokens = slice(span.start, span.end)
        alone = dataclasses.replace(span, start=0, end=span.num_tokens)
        assert torch.equal(case.attend(q=case.q[tokens], spans=[alone]), together[tokens])


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_tiles_of_other_targets_keep_value_and_bits(head_dim, target, monkeypatch):
    monkeypatch.setattr(devices, "target", lambda: target)
    case = Case([(300, 1), (45, 45), (257, 4)], head_dim=head_dim)
    q, spans = case.last_rows()

    whole = case.attend(_WHOLE)
    decoded = case.attend(_SPLIT, q=q, spans=spans)

    assert_near(whole, case.expected(), eps=2)
    assert torch.equal(decoded, whole[[span.end - 1 for span in case.spans]])


def test_the_number_of_rows_in_a_tile_does_not_change_bits(monkeypatch):
    case = Case([(280, 60)])
    of_64 = case.attend(_WHOLE)

    tiles = tuned.tiles_for("sm_80", 64, is_fp8=False)
    monkeypatch.setitem(
        tuned._TILES, ("sm_80", 64, False), dataclasses.replace(tiles, whole_rows=128)
    )

    assert torch.equal(case.attend(_WHOLE), of_64)


def test_sequences_of_context_0_fill_up_a_batch():
    case = Case([(300, 1), (5, 1)])
    filled = [case.spans[0], Span(1, 2, 0, 0), case.spans[1], Span(3, 4, 0, 0)]
    filled[2] = dataclasses.replace(filled[2], start=2, end=3)
    q = torch.stack([case.q[0], case.q[0], case.q[1], torch.full_like(case.q[0], float("nan"))])

    out = case.attend(q=q, spans=filled)

    assert torch.equal(out[[0, 2]], case.attend())
    assert not out[[1, 3]].any()


@pytest.mark.parametrize(
    ("heads", "max_lines"),
    [(Heads(2, 1), 11), (Heads(70, 1), 3 * 70 + 2 * 70 - 1)],
    ids=str,
)
def test_what_exceeds_the_room_for_partial_results_is_computed_whole(heads, max_lines, monkeypatch):
    case = Case([(40, 1), (600, 1), (257, 1)], heads=heads)  # of 1, 3 and 2 chunks
    monkeypatch.setattr(devices, "target", lambda: "sm_90")

    assert torch.equal(case.attend(max_lines), case.attend(_SPLIT))


def test_blocks_may_lie_beyond_2_to_the_31_numbers():
    case = Case([(40, 1), (70, 3)], heads=Heads(2, 2))
    num_blocks = 2**31 // case.cache[0].numel() + len(case.cache)
    cache = torch.empty(num_blocks, *case.cache.shape[1:], dtype=case.cache.dtype)
    cache[-len(case.cache) :] = case.cache  # the rest takes no memory
    expected = case.attend()

    case.cache, case.tables = cache, case.tables + num_blocks - len(case.cache)

    assert torch.equal(case.attend(), expected)


def test_queries_and_outputs_may_be_apart():
    case = Case([(70, 1), (33, 30)], heads=Heads(4, 2))
    qkv = nans(31, 8, 64, dtype=torch.float16)
    qkv[:, :4] = case.q

    assert torch.equal(case.attend(q=qkv[:, :4]), case.attend())


@pytest.mark.parametrize(("kv_dtype", "group"), [(torch.float16, 4), (FP8[0], 3)])
def test_a_decode_moves_hardly_more_than_keys_values_and_results(traffic, kv_dtype, group):
    heads, context, head_dim = Heads(2 * group, 2), 512, 128
    case = Case([(context, 1)], heads=heads, head_dim=head_dim, kv_dtype=kv_dtype)
    traffic.reset()

    case.attend()

    keys_values = context * 2 * heads.num_kv_heads * head_dim * kv_dtype.itemsize
    q_and_out = 2 * heads.num_heads * head_dim * 2
    partials = 2 * (context // tuned.CHUNK) * heads.num_heads * (head_dim + 2) * 4
    assert traffic.total <= 1.1 * (keys_values + q_and_out + partials)
