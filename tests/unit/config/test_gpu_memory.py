"""A GPU's memory: a bound before the model is loaded, and what the engine has measured after."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.serving import GIB, H100, gpu_model, gpu_stack, hardware
from tgi_cli.errors import ArgumentError, CapacityError
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolve import resolve
from tgi_cli.runtime.config.resolved import ResolvedConfig
from tgi_cli.runtime.config.stored_tensors import num_parameters

BLOCK_BYTES = 3 * 2 * 2 * 16 * 2 * 32  # layers, heads, keys and values, features, bf16, tokens
WEIGHTS_BYTES = num_parameters(gpu_model().config) * 2


def decide(num_blocks: float, *, measured: int | None = None, **options: Any) -> ResolvedConfig:
    """Decide for a GPU that has room for that many blocks beside the weights."""
    total_bytes = WEIGHTS_BYTES + int(num_blocks * BLOCK_BYTES / 0.9) + 1
    stack = gpu_stack(dataclasses.replace(H100, total_bytes=total_bytes))
    return resolve(ServeOptions(**options), gpu_model(), hardware(gpus=stack), measured)


def test_what_the_weights_leave_free_bounds_the_blocks() -> None:
    config = decide(13)

    assert config.engine.num_blocks == 13
    assert config.router.limits.max_total_tokens == 13 * 32


def test_the_share_is_of_the_whole_memory() -> None:
    whole = resolve(ServeOptions(), gpu_model(), hardware(gpus=gpu_stack()))
    half_card = gpu_stack(dataclasses.replace(H100, total_bytes=H100.total_bytes // 2))

    config = resolve(
        ServeOptions(cuda_memory_fraction=0.5, max_concurrent_requests=10**9),
        gpu_model(),
        hardware(gpus=gpu_stack()),
    )
    expected = resolve(
        ServeOptions(max_concurrent_requests=10**9), gpu_model(), hardware(gpus=half_card)
    )

    assert config.engine.num_blocks == expected.engine.num_blocks
    assert config.engine.memory_fraction == 0.5
    assert whole.engine.memory_fraction == 1.0


def test_limits_are_completed_with_what_was_measured() -> None:
    config = decide(13, measured=7)

    assert config.engine.num_blocks == 7
    assert config.router.max_batch_total_tokens == 7 * 32
    assert config.router.limits.max_total_tokens == 7 * 32
    assert config.router.limits.max_input_tokens == 7 * 32 - 1
    assert config.router.max_batch_prefill_tokens == 7 * 32


def test_a_longest_request_that_no_longer_fits_ends_the_start() -> None:
    assert decide(13, max_total_tokens=300).router.limits.max_total_tokens == 300

    with pytest.raises(CapacityError) as caught:
        decide(13, measured=7, max_total_tokens=300)

    assert caught.value.message == "Not enough memory to handle `max_total_tokens=300`"
    assert caught.value.hint == "224 tokens fit: lower --max-total-tokens."


def test_a_cache_that_was_asked_for_and_does_not_fit_is_told_with_both_numbers() -> None:
    config = decide(13, measured=7, max_batch_total_tokens=400)

    assert config.router.max_batch_total_tokens == 224
    assert config.warnings == (
        "`max_batch_total_tokens` is 400 but 224 fit the memory; 224 is used",
    )


@settings(max_examples=200, deadline=None)
@given(
    num_blocks=st.integers(1, 100),
    share=st.floats(0.01, 1.0),
    asked=st.one_of(st.none(), st.integers(2, 4_000)),
    max_concurrent_requests=st.integers(1, 50),
)
def test_measuring_less_never_raises_a_limit(
    num_blocks: int, share: float, asked: int | None, max_concurrent_requests: int
) -> None:
    options: dict[str, Any] = {
        "max_total_tokens": asked,
        "max_concurrent_requests": max_concurrent_requests,
    }

    try:
        before = decide(num_blocks, **options)
        measured = max(1, int(before.engine.num_blocks * share))
        after = decide(num_blocks, measured=measured, **options)
    except CapacityError:
        assert asked is not None
        return

    for path in ("max_batch_total_tokens", "max_batch_prefill_tokens"):
        assert getattr(after.router, path) <= getattr(before.router, path)
    assert after.router.limits.max_total_tokens <= before.router.limits.max_total_tokens
    assert after.router.limits.max_total_tokens <= measured * 32
    assert after.engine.num_blocks <= measured


def test_codes_leave_a_tied_embedding_in_16_bits_beside_them() -> None:
    model = gpu_model(tie_word_embeddings=True)
    weights = msgspec.structs.replace(model.weights, kind="gguf", num_bytes_on_grid=GIB)
    model = dataclasses.replace(model, weights=weights)
    needed = GIB + 2 * model.config.vocab_size * model.config.hidden_size + BLOCK_BYTES
    options = ServeOptions(quantize="gguf", device="cuda")
    enough, too_little = (
        hardware(gpus=gpu_stack(dataclasses.replace(H100, total_bytes=total_bytes)))
        for total_bytes in (needed, needed - 1)
    )

    resolve(options, model, enough)

    with pytest.raises(ArgumentError, match="for its weights"):
        resolve(options, model, too_little)
