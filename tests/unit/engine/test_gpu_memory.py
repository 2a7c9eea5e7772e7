"""How many KV blocks an engine finds room for, over a device whose memory is numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import engine_config
from tests.builders.fake_gpu import FakeGpu
from tgi_cli.errors import CapacityError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.memory import (
    block_bytes,
    largest_step,
    with_blocks,
    with_measured_cache,
)
from tgi_cli.runtime.engine.plan import StepPlan

WEIGHTS, FOREIGN, STEP = 100_000, 20_000, 30_000
BLOCK = 2 * 1 * 1 * 4 * 2 * 4  # keys and values, layers, heads, features, fp16, tokens


def gpu_config(**changes: Any) -> EngineConfig:
    return engine_config(
        **{
            "device": "cuda",
            "dtype": "float16",
            "kv_cache_dtype": "float16",
            "num_blocks": 1_000,
            "wiggle_room": 1.0,
            **changes,
        }
    )


def gpu_of(total_bytes: int) -> FakeGpu:
    gpu = FakeGpu(total_bytes=total_bytes, used_bytes=WEIGHTS)
    gpu.foreign_bytes = FOREIGN
    return gpu


def run_on(gpu: FakeGpu, step_bytes: int = STEP) -> Any:
    """Return what runs a step that holds `step_bytes` beside its cache."""

    def run(config: EngineConfig, plan: StepPlan) -> None:
        cache_bytes = config.num_blocks * block_bytes(config)
        gpu.allocate(cache_bytes)
        try:
            gpu.launch("largest step", step_bytes)
        finally:
            gpu.allocate(-cache_bytes)

    return run


def measure(gpu: FakeGpu, step_bytes: int = STEP, **changes: Any) -> EngineConfig:
    return with_measured_cache(gpu_config(**changes), gpu, run_on(gpu, step_bytes))


def test_blocks_take_what_weights_others_and_the_largest_step_leave() -> None:
    gpu = gpu_of(WEIGHTS + FOREIGN + STEP + 77 * BLOCK + 5)

    config = measure(gpu)

    assert config.num_blocks == 77
    assert gpu.used_bytes == WEIGHTS


def test_the_share_is_of_the_whole_card_whoever_uses_it() -> None:
    total = 2 * (WEIGHTS + FOREIGN + STEP + 30 * BLOCK)

    config = measure(gpu_of(total), memory_fraction=0.5)

    assert config.num_blocks == 30


def test_a_part_of_what_is_free_is_left_alone() -> None:
    total = WEIGHTS + FOREIGN + STEP + 100 * BLOCK

    assert measure(gpu_of(total), wiggle_room=0.9).num_blocks == 90


def test_graphs_have_a_reserve() -> None:
    config = gpu_config(cuda_graphs=(1, 2, 6))
    reserve = 3 * (16 << 20) + STEP * 6 // config.max_step_tokens
    gpu = gpu_of(WEIGHTS + FOREIGN + STEP + reserve + 50 * BLOCK)

    assert measure(gpu, cuda_graphs=(1, 2, 6)).num_blocks == 50


def test_no_more_blocks_are_taken_than_the_limits_can_use() -> None:
    assert measure(gpu_of(1 << 30)).num_blocks == 1_000


def test_limits_follow_a_small_cache() -> None:
    config = with_blocks(gpu_config(cuda_graphs=(1, 4, 6)), 3)

    assert config.num_blocks == 3
    assert config.max_running == 3  # each sequence holds a block at least
    assert config.max_total_tokens == config.max_step_tokens == 12
    assert config.cuda_graphs == (1, 3)


def test_a_step_that_does_not_fit_names_the_option_to_lower() -> None:
    with pytest.raises(CapacityError) as caught:
        measure(gpu_of(WEIGHTS + FOREIGN + STEP // 2))

    assert caught.value.message == (
        "Not enough memory to handle 16 prefill tokens. "
        "You need to decrease `--max-batch-prefill-tokens`"
    )


def test_no_room_for_a_block_names_what_takes_it() -> None:
    gpu = gpu_of(WEIGHTS + FOREIGN + STEP + 40 * BLOCK)

    with pytest.raises(CapacityError, match="no memory left for a KV cache") as caught:
        measure(gpu, memory_fraction=0.5)

    assert "--cuda-memory-fraction" in (caught.value.hint or "")


def test_other_errors_of_the_step_are_not_taken_for_memory() -> None:
    def run(config: EngineConfig, plan: StepPlan) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        with_measured_cache(gpu_config(), gpu_of(1 << 30), run)


@settings(max_examples=200, deadline=None)
@given(
    max_running=st.integers(1, 40),
    max_step_tokens=st.integers(1, 300),
    max_total_tokens=st.integers(2, 100),
    block_size=st.sampled_from([1, 4, 32]),
)
def test_the_largest_step_is_full_and_within_every_limit(
    max_running: int, max_step_tokens: int, max_total_tokens: int, block_size: int
) -> None:
    config = gpu_config(
        max_running=max_running,
        max_step_tokens=max_step_tokens,
        max_total_tokens=max_total_tokens,
        block_size=block_size,
    )

    plan = largest_step(config)

    lengths = [chunk.num_tokens for chunk in plan.chunks]
    assert len(lengths) == min(max_running, max_step_tokens)
    assert max(lengths) < max_total_tokens
    most = len(lengths) * (max_total_tokens - 1)
    assert sum(lengths) == min(max_step_tokens, most)
    assert all(chunk.is_last for chunk in plan.chunks)
    blocks = [block for chunk in plan.chunks for block in chunk.new_blocks]
    assert blocks == list(range(len(blocks)))
    for chunk in plan.chunks:
        assert len(chunk.new_blocks) == -(-chunk.num_tokens // block_size)
