"""An engine's start on a GPU: what is measured, captured and said, and what ends it."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.builders.engine import request, run_to_end
from tests.builders.fake_gpu import GIB, FakeGpu
from tests.builders.gpu_model import (
    ToyAttention,
    ToyDeviceSampler,
    ToyModel,
    gpu_config,
    make_plain_runner,
)
from tgi_cli.errors import CapacityError, DeterminismError, StartError, UnsupportedModelError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine import gpu_parts, load_gpu, process
from tgi_cli.runtime.engine.determinism import Determinism
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.load_gpu import Parts, load, open_gpu
from tgi_cli.runtime.engine.loaded import Loaded
from tgi_cli.runtime.engine.memory import block_bytes
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.sampling.launched import MixedSampler
from tgi_cli.runtime.engine.sampling.sampler import Sampler, SamplerConfig
from tgi_cli.runtime.engine.staging import Staging
from tgi_cli.runtime.layers.head import Scores

WEIGHTS = 100_000


class CountedAttention(ToyAttention):
    """One whose caches take the device's memory for as long as they are there."""

    def __init__(self, config: EngineConfig, gpu: FakeGpu, staging: Staging) -> None:
        super().__init__(staging, config.block_size)
        self._gpu = gpu
        self._block_bytes = block_bytes(config)

    def new_cache(self, num_blocks: int, *args: Any) -> Tensor:
        cache = super().new_cache(num_blocks, *args)
        self._gpu.allocate(num_blocks * self._block_bytes)
        weakref.finalize(cache, self._gpu.allocate, -num_blocks * self._block_bytes)
        return cache


def toy_parts(
    *, bytes_per_token: int = 0, weights_bytes: int = WEIGHTS, out_of_host_memory: bool = False
) -> Parts:
    def make_model(config: EngineConfig, gpu: Any, attention: Any) -> ToyModel:
        if out_of_host_memory:
            raise MemoryError
        gpu.allocate(weights_bytes)
        model = ToyModel(gpu, attention)
        model.bytes_per_token = bytes_per_token
        return model

    def make_sampler(config: EngineConfig, gpu: Any, runner: Any, staging: Any) -> MixedSampler:
        host = Sampler(SamplerConfig.of(config))
        return MixedSampler(gpu, ToyDeviceSampler(gpu, runner, config), host)

    return Parts(
        attention=CountedAttention,  # type: ignore[arg-type]
        model=make_model,  # type: ignore[arg-type]
        sampler=make_sampler,
    )


def load_toy(gpu: FakeGpu, *, parts: Parts | None = None, **changes: Any) -> Loaded:
    changes = {"wiggle_room": 1.0, "device": "cuda", **changes}
    return load(gpu_config(**changes), gpu, parts or toy_parts())  # type: ignore[arg-type]


def test_an_engine_that_was_loaded_says_what_the_cpus_says() -> None:
    loaded = load_toy(FakeGpu(), cuda_graphs=(1, 2, 4))
    plain = Engine(loaded.config, make_plain_runner(loaded.config))
    for engine in (loaded.engine, plain):
        for request_id in range(5):
            engine.add(request(request_id, num_tokens=3 + 4 * request_id, max_new_tokens=7))

    assert run_to_end(loaded.engine) == run_to_end(plain)


def test_the_step_and_the_weights_leave_the_rest_to_the_cache() -> None:
    step_bytes = 16 * 5_000  # of the largest step, whose tokens take 5,000 each
    block = block_bytes(gpu_config())
    gpu = FakeGpu(total_bytes=WEIGHTS + step_bytes + 25 * block)

    loaded = load_toy(gpu, parts=toy_parts(bytes_per_token=5_000))

    assert loaded.config.num_blocks == 25
    assert loaded.engine.blocks.num_free_blocks == 25


def test_the_promise_can_be_looked_at() -> None:
    loaded = load_toy(FakeGpu(), cuda_graphs=(1, 2, 4))

    Determinism(loaded.runner, loaded.config, num_requests=3).verify()


def test_on_a_gpu_the_longest_request_has_more_keys_than_a_program_sums_at_once() -> None:
    loaded = load_toy(FakeGpu(), max_total_tokens=400, num_blocks=60)

    determinism = Determinism(loaded.runner, loaded.config, num_requests=3)

    assert [len(prompt) for prompt in determinism.prompts] == [1, 10, 300]
    assert determinism.together().keys() == {0, 1, 2}


@pytest.mark.parametrize(
    ("num_blocks", "longest"), [(15, 7 * 5 - 4), (20, 7 * 10 - 4), (10, 7 * 5 - 4)]
)
def test_the_longest_request_leaves_the_others_their_blocks(num_blocks: int, longest: int) -> None:
    loaded = load_toy(FakeGpu(), max_total_tokens=400, num_blocks=num_blocks)

    determinism = Determinism(loaded.runner, loaded.config, num_requests=3)

    assert len(determinism.prompts[-1]) == longest
    determinism.verify()


@pytest.mark.parametrize(
    ("attention", "hint"), [("paged", "Please report it"), ("flash-attn", "Leave --attention out")]
)
def test_other_bits_on_a_gpu_are_told_with_what_to_do(
    attention: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_toy(FakeGpu(), attention=attention)
    run = loaded.runner.run

    def disturbed(plan: StepPlan) -> Scores:
        scores = run(plan)
        return Scores.of(scores.logits + 1e-3) if len(plan.chunks) > 1 else scores

    monkeypatch.setattr(loaded.runner, "run", disturbed)

    with pytest.raises(DeterminismError) as raised:
        Determinism(loaded.runner, loaded.config, num_requests=3).verify()
    assert hint in str(raised.value.hint)


def test_the_main_process_is_told_how_many_blocks_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(total_bytes=WEIGHTS + 25 * block_bytes(gpu_config()))
    monkeypatch.setattr(load_gpu, "open_gpu", lambda: gpu)
    monkeypatch.setattr(gpu_parts, "PARTS", toy_parts())
    monkeypatch.setattr(process.cpu, "set_num_threads", lambda _: None)
    monkeypatch.setattr(process.gc, "freeze", lambda: None)

    _, ready = process._start(gpu_config(device="cuda", wiggle_room=1.0, verify_determinism=True))

    assert (ready.num_blocks, ready.block_size) == (25, 7)
    assert ready.kernels.startswith("Triton on NVIDIA H100")


def test_what_computes_is_described() -> None:
    loaded = load_toy(FakeGpu(arch="sm_89", name="NVIDIA L4"), cuda_graphs=(1, 3))

    assert loaded.kernels == (
        "Triton on NVIDIA L4 (sm_89, tiles of sm_80); attention: toy; cuda graphs: 1,3"
    )


def test_graphs_that_cannot_be_captured_are_gone_without() -> None:
    gpu = FakeGpu()
    gpu.fails_capture = lambda: True

    loaded = load_toy(gpu, cuda_graphs=(1, 3))

    assert loaded.kernels.endswith("cuda graphs: none")


@pytest.mark.parametrize(
    ("gpu", "parts", "text"),
    [
        (
            FakeGpu(total_bytes=WEIGHTS - 1),
            toy_parts(),
            "The model's weights don't fit the GPU: 0.1 MiB of its 0.1 MiB were free.",
        ),
        (FakeGpu(), toy_parts(out_of_host_memory=True), "The model's weights don't fit the GPU"),
        (
            FakeGpu(total_bytes=WEIGHTS + 100_000),
            toy_parts(bytes_per_token=7_000),
            "Not enough memory to handle 16 prefill tokens. "
            "You need to decrease `--max-batch-prefill-tokens`",
        ),
    ],
)
def test_too_little_memory_says_for_what(gpu: FakeGpu, parts: Parts, text: str) -> None:
    with pytest.raises(CapacityError, match=f"^{text}"):
        load_toy(gpu, parts=parts)


def test_a_card_that_others_fill_is_named_before_the_weights_are_read() -> None:
    def make_attention(config: EngineConfig, gpu: Any, staging: Any) -> Any:
        gpu.allocate(1000)  # room for its partial results

    gpu = FakeGpu(total_bytes=GIB)
    gpu.foreign_bytes = GIB - 999
    parts = dataclasses.replace(toy_parts(), attention=make_attention)

    with pytest.raises(CapacityError, match=r"don't fit the GPU: 0.0 MiB of its 1.00 GiB"):
        load_toy(gpu, parts=parts)


def test_a_warm_up_that_runs_out_of_memory_names_the_option_to_lower() -> None:
    gpu = FakeGpu()
    measuring = FakeGpu()
    load_toy(measuring)
    num_measuring_launches = 3  # the largest step: the model, its scores, the sampler
    assert len(measuring.calls_of("launch")) > num_measuring_launches
    gpu.out_of_memory_at = set(range(num_measuring_launches, 99))

    with pytest.raises(CapacityError, match="You need to decrease `--max-batch-prefill-tokens`"):
        load_toy(gpu)


def test_a_kernel_of_few_rows_that_fails_is_not_taken_for_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = ToyModel.forward

    def too_large_for_one_row(model: ToyModel, token_ids: Tensor, context: Any) -> Tensor:
        if len(token_ids) == 1:
            raise RuntimeError("out of resource: shared memory")
        return forward(model, token_ids, context)

    monkeypatch.setattr(ToyModel, "forward", too_large_for_one_row)

    with pytest.raises(UnsupportedModelError, match="can't compute this model on NVIDIA L4"):
        load_toy(FakeGpu(name="NVIDIA L4"))


def test_a_device_that_breaks_while_capturing_ends_the_start() -> None:
    measuring = FakeGpu()
    load_toy(measuring)
    gpu = FakeGpu(name="NVIDIA L4")
    gpu.breaks_at = measuring.num_launches

    with pytest.raises(UnsupportedModelError, match="can't compute this model on NVIDIA L4"):
        load_toy(gpu, cuda_graphs=(1, 2))


def test_a_kernel_that_a_device_cannot_run_ends_the_start() -> None:
    gpu = FakeGpu(name="NVIDIA L4")
    gpu.breaks_at = 0

    with pytest.raises(UnsupportedModelError, match="can't compute this model on NVIDIA L4"):
        load_toy(gpu)


def test_a_device_that_no_kernel_is_made_for_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Tesla T4 is sm_75"):
        load_toy(FakeGpu(name="Tesla T4", arch="sm_75"))


def test_a_gpu_that_torch_cannot_use_ends_the_start() -> None:
    assert not torch.cuda.is_available()

    with pytest.raises(StartError, match="The GPU can't be used"):
        open_gpu()


def test_memory_is_that_of_the_card_and_not_of_this_process() -> None:
    gpu = FakeGpu(total_bytes=GIB)
    gpu.foreign_bytes = GIB - WEIGHTS - 3 * block_bytes(gpu_config()) - 16

    loaded = load_toy(gpu, max_step_tokens=7, max_running=1)

    assert loaded.config.num_blocks == 3
