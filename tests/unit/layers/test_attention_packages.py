"""flash-attn and FlashInfer, called as their documentation says; the packages are stand-ins."""

from __future__ import annotations

import importlib
import importlib.metadata

import numpy as np
import pytest
import torch

from tests.builders.attention_packages import FakeFlashAttn, FakeFlashInfer
from tgi_cli.errors import MissingExtraError
from tgi_cli.kernels.paged_attention import Span, reference
from tgi_cli.runtime.layers.attention import flash_attn, flashinfer
from tgi_cli.runtime.layers.attention.flash_attn import FlashAttnAttention
from tgi_cli.runtime.layers.attention.flashinfer import FlashInferAttention
from tgi_cli.runtime.platforms.uploads import PlainUploader

HERE = torch.device("cpu")
HEADS, KV_HEADS, DIM = 6, 2, 64


def pretend_installed(monkeypatch, module: object, version: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(importlib, "import_module", lambda name: module)


@pytest.fixture(params=["flash-attn", "flashinfer"])
def backend(request, monkeypatch):
    if request.param == "flash-attn":
        pretend_installed(monkeypatch, FakeFlashAttn(), "2.8.3.post2")
        return FlashAttnAttention(PlainUploader(HERE), HERE)
    pretend_installed(monkeypatch, FakeFlashInfer(), "0.7.2.post1")
    return FlashInferAttention(HERE)


def step_of(lengths: list[tuple[int, int]], block_size: int):
    """Return spans and tables of sequences with (tokens of the step, context)."""
    spans, first = [], 0
    for row, (num_tokens, context_len) in enumerate(lengths):
        spans.append(Span(first, first + num_tokens, context_len, len(lengths) - 1 - row))
        first += num_tokens
    width = -(-max(context for _, context in lengths) // block_size)
    blocks = np.random.default_rng(0).permutation(len(lengths) * width)
    return spans, blocks.reshape(len(lengths), width).astype(np.int64), first


STEPS = {
    "decoding": [(1, 1), (1, 300), (1, 257)],
    "prefilling": [(5, 5), (256, 256), (33, 290)],
    "both": [(1, 40), (31, 33), (1, 32), (2, 2)],
}


@pytest.mark.parametrize("window", [None, 3, 40])
@pytest.mark.parametrize("lengths", STEPS.values(), ids=STEPS)
def test_a_steps_rows_attend_as_the_reference_says(backend, lengths, window) -> None:
    spans, tables, num_tokens = step_of(lengths, backend.block_size)
    num_blocks = tables.size
    generator = torch.Generator().manual_seed(0)
    contents = torch.randn(
        num_blocks * backend.block_size, 2, KV_HEADS, DIM, generator=generator
    ).half()
    q = torch.randn(num_tokens, HEADS, DIM, generator=generator).half()
    cache = backend.new_cache(num_blocks, KV_HEADS, DIM, torch.float16)
    order = torch.randperm(len(contents), generator=generator)  # a slot's place in the step is free
    backend.store(contents[order], cache, order)

    out = backend.attend(q, cache, backend.plan(spans, tables, window), 0.125, 0.0)

    blocks = contents.unflatten(0, (num_blocks, backend.block_size)).permute(0, 2, 3, 1, 4)
    expected = reference.paged_attention(
        q.double(), blocks.double(), spans, tables.tolist(), 0.125, window
    )
    assert out.dtype == q.dtype
    torch.testing.assert_close(out.double(), expected, rtol=2e-3, atol=2e-3)


def test_a_soft_cap_reaches_the_package(backend) -> None:
    spans, tables, num_tokens = step_of([(1, 40), (7, 9)], backend.block_size)
    generator = torch.Generator().manual_seed(0)
    q = 30 * torch.randn(num_tokens, HEADS, DIM, generator=generator).half()
    cache = backend.new_cache(tables.size, KV_HEADS, DIM, torch.float16)
    cache.copy_(torch.randn(cache.shape, generator=generator))

    capped = backend.attend(q, cache, backend.plan(spans, tables, None), 0.125, 2.0)

    blocks = cache[: tables.size].permute(0, 1, 3, 2, 4).double()
    expected = reference.paged_attention(
        q.double(), blocks, spans, tables.tolist(), 0.125, None, 2.0
    )
    torch.testing.assert_close(capped.double(), expected, rtol=2e-3, atol=2e-3)


def test_a_cleared_block_holds_zeros_and_what_is_too_large_is_the_types_largest(backend) -> None:
    cache = backend.new_cache(2, KV_HEADS, DIM, torch.float16)
    kv = torch.full((2, 2, KV_HEADS, DIM), 1e6)
    backend.store(kv, cache, torch.tensor([0, backend.block_size]))

    backend.clear(cache, [1])

    assert bool((cache[0, :, 0] == 65504).all())
    assert not cache[1].any()


def test_a_slot_below_0_takes_nothing(backend) -> None:
    cache = backend.new_cache(2, KV_HEADS, DIM, torch.float16)
    kv = torch.ones(3, 2, KV_HEADS, DIM).half()

    backend.store(kv, cache, torch.tensor([-1, 3, -1]))

    assert cache[0, :, 3].all()
    assert float(cache[:2].sum()) == 2 * KV_HEADS * DIM


def test_flashinfer_plans_once_a_step_whatever_the_number_of_layers(monkeypatch) -> None:
    module = FakeFlashInfer()
    pretend_installed(monkeypatch, module, "0.7.2")
    backend = FlashInferAttention(HERE)
    spans, tables, num_tokens = step_of([(1, 40), (1, 9)], backend.block_size)
    caches = [backend.new_cache(tables.size, KV_HEADS, DIM, torch.float16) for _ in range(5)]
    plan = backend.plan(spans, tables, None)

    for cache in caches:
        backend.attend(torch.zeros(num_tokens, HEADS, DIM).half(), cache, plan, 0.125)

    assert module.num_plans == 1


def test_decoding_rows_never_share_a_call_with_prefilling_ones(monkeypatch) -> None:
    module = FakeFlashAttn()
    pretend_installed(monkeypatch, module, "2.6.3")
    backend = FlashAttnAttention(PlainUploader(HERE), HERE)
    spans, tables, num_tokens = step_of([(1, 40), (7, 9)], backend.block_size)
    cache = backend.new_cache(tables.size, KV_HEADS, DIM, torch.float16)
    q = torch.zeros(num_tokens, HEADS, DIM).half()

    backend.attend(q, cache, backend.plan(spans, tables, None), 0.125)

    assert sorted(module.calls) == ["decode", "prefill"]


@pytest.mark.parametrize("version", ["2.5.9.post1", "3.0.0b1", "4"])
def test_a_version_that_calls_differently_is_refused_by_its_number(monkeypatch, version) -> None:
    pretend_installed(monkeypatch, FakeFlashAttn(), version)

    with pytest.raises(MissingExtraError, match=rf">=2\.6,<3\.0; {version} is installed"):
        FlashAttnAttention(PlainUploader(HERE), HERE)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"flashinfer-python >=0\.5.*isn't installed"):
        FlashInferAttention(HERE)


def test_a_package_that_does_not_load_is_refused_without_its_own_words(monkeypatch) -> None:
    def fail(name: str) -> None:
        raise OSError("/usr/lib/secret.so: undefined symbol")

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.8.3")
    monkeypatch.setattr(importlib, "import_module", fail)

    with pytest.raises(MissingExtraError, match=r"doesn't load: OSError\.$"):
        FlashAttnAttention(PlainUploader(HERE), HERE)


def test_flashinfer_is_refused_on_amds_gpus(monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")

    assert "AMD" in flashinfer.unsupported(128, torch.float16, torch.float16)
    assert flash_attn.unsupported(128, torch.float16, torch.float16) is None


@pytest.mark.parametrize(
    ("unsupported", "head_dim", "kv_dtype", "reason"),
    [
        (flash_attn.unsupported, 288, torch.float16, "up to 256"),
        (flash_attn.unsupported, 64, torch.float8_e5m2, "model's own type"),
        (flashinfer.unsupported, 80, torch.float16, "64, 128, 256 wide, and not 80"),
        (flashinfer.unsupported, 64, torch.bfloat16, "model's own type"),
        (flash_attn.unsupported, 96, torch.float16, None),
        (flashinfer.unsupported, 128, torch.float16, None),
    ],
)
def test_heads_that_a_package_cannot_do_are_refused_in_words(
    unsupported, head_dim, kv_dtype, reason
) -> None:
    found = unsupported(head_dim, torch.float16, kv_dtype)

    assert found is None if reason is None else reason in found
