"""The GPU's attention backend through its protocol, its kernels interpreted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from tests.kernels.triton.numbers import assert_near, randn
from tgi_cli.kernels.paged_attention import BLOCK_SIZE, Span, reference
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.layers.attention.triton_paged import TritonPagedAttention, unsupported
from tgi_cli.runtime.platforms.uploads import PlainUploader

CPU = torch.device("cpu")
MAX_CONTEXT, NUM_BLOCKS = 640, 30


class CountingUploader(PlainUploader):
    def __init__(self) -> None:
        super().__init__(CPU)
        self.names: Counter[str] = Counter()

    def upload(self, name, array):
        self.names[name] += 1
        return super().upload(name, array)


def make_backend(*, uploader: PlainUploader | None = None, **options: object) -> AttentionBackend:
    return TritonPagedAttention(
        **{
            "num_heads": 6,
            "num_kv_heads": 2,
            "head_dim": 64,
            "kv_cache_dtype": torch.float16,
            "max_context": MAX_CONTEXT,
            "device": CPU,
            "uploader": uploader or PlainUploader(CPU),
            **options,
        }
    )


def tables_of(*contexts: int) -> np.ndarray:
    """Return block tables whose tails aren't valid, a line for each context."""
    tables = np.full((len(contexts), MAX_CONTEXT // BLOCK_SIZE), 10**6)
    order = np.random.default_rng(0).permutation(NUM_BLOCKS)
    for line, context in zip(tables, contexts, strict=True):
        held = -(-context // BLOCK_SIZE)
        line[:held], order = order[:held], order[held:]
    return tables


@pytest.mark.parametrize("kv_dtype", [torch.float16, torch.float8_e5m2])
def test_a_step_with_windowed_layers_matches_reference(kv_dtype):
    backend = make_backend(kv_cache_dtype=kv_dtype)
    cache = backend.new_cache(NUM_BLOCKS, 2, 64, kv_dtype)
    kv = randn(NUM_BLOCKS * BLOCK_SIZE, 2, 2, 64, dtype=torch.float16)
    backend.store(kv, cache, torch.arange(len(kv)))
    spans, tables = [Span(0, 1, 300, 1), Span(1, 12, 45, 0)], tables_of(45, 300)
    q = randn(12, 6, 64, dtype=torch.float16, seed=1)

    full, windowed = backend.plan(spans, tables, None), backend.plan(spans, tables, 33)

    for plan, window in ((full, None), (windowed, 33)):
        out = backend.attend(q, cache, plan, 0.125, 0.0)
        expected = reference.paged_attention(
            q.double(), cache.double(), spans, tables.tolist(), 0.125, window
        )
        assert_near(out, expected, eps=2)


def test_plans_of_a_step_share_what_is_uploaded():
    uploader = CountingUploader()
    backend = make_backend(uploader=uploader)
    spans, tables = [Span(0, 1, 300, 1)], tables_of(45, 300)

    backend.plan(spans, tables, None)
    backend.plan(spans, tables, 33)

    assert uploader.names["attention.sequences"] == 1
    assert uploader.names["attention.block_tables"] == 1


def test_a_decode_is_read_where_the_one_before_was():
    backend = make_backend()
    cache = backend.new_cache(NUM_BLOCKS, 2, 64, torch.float16)
    kv = randn(NUM_BLOCKS * BLOCK_SIZE, 2, 2, 64, dtype=torch.float16)
    backend.store(kv, cache, torch.arange(len(kv)))
    q = randn(2, 6, 64, dtype=torch.float16)

    # A graph keeps the plan with which it was recorded.
    recorded = backend.plan([Span(0, 1, 0, 0), Span(1, 2, 0, 1)], tables_of(0, 0), None)
    now = backend.plan([Span(0, 1, 40, 0), Span(1, 2, 300, 1)], tables_of(40, 300), None)

    assert (recorded.num_splits, recorded.split_rows) == (now.num_splits, now.split_rows)
    assert torch.equal(
        backend.attend(q, cache, recorded, 0.125, 0.0), backend.attend(q, cache, now, 0.125, 0.0)
    )
    assert bool(recorded.sequences[:2, 2].eq(torch.tensor([40, 300])).all())


@pytest.mark.parametrize("kv_dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_cleared_blocks_are_zeros(kv_dtype):
    backend = make_backend(kv_cache_dtype=kv_dtype)
    cache = backend.new_cache(4, 2, 64, kv_dtype)
    backend.store(
        torch.full((128, 2, 2, 64), float("nan"), dtype=torch.bfloat16), cache, torch.arange(128)
    )

    backend.clear(cache, [0, 3])

    assert bool(cache.float()[1:3].isnan().all())
    assert not cache.float()[[0, 3]].any()


def test_what_the_kernels_cannot_do_is_named():
    half, brain = torch.float16, torch.bfloat16

    assert unsupported(128, brain, brain) is None
    assert unsupported(80, half, torch.float8_e4m3fn) is None
    assert "320" in str(unsupported(320, half, half))
    assert "72" in str(unsupported(72, half, half))
    assert "float32" in str(unsupported(64, torch.float32, torch.float32))
    assert "KV cache of float16" in str(unsupported(64, brain, half))
