"""Load a model to compute on a GPU, size its KV cache, and let it answer its warm-up.

    weights ─► the largest step, over a small cache ─► KV cache ─► warm-up ─► graphs

Everything of ours is queued on one stream, the device's default one, so that what a step writes is
there for the next. Running out of memory names what to lower: docs/concepts/gpu.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tgi_cli.errors import CapacityError, StartError, UnsupportedModelError
from tgi_cli.kernels import devices
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.config.start_notes import show_bytes
from tgi_cli.runtime.engine.gpu_runner import GpuRunner
from tgi_cli.runtime.engine.loaded import Loaded, too_many_prefill_tokens
from tgi_cli.runtime.engine.memory import with_measured_cache
from tgi_cli.runtime.engine.overlapped import OverlappedEngine
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.sampling.launched import LaunchingSampler
from tgi_cli.runtime.engine.staging import Staging
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.models.base import Model
from tgi_cli.runtime.platforms.gpu import Gpu

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What is made for a GPU; tests make other things over a fake one."""

    attention: Callable[[EngineConfig, Gpu, Staging], AttentionBackend]
    model: Callable[[EngineConfig, Gpu, AttentionBackend], Model]
    sampler: Callable[[EngineConfig, Gpu, GpuRunner, Staging], LaunchingSampler]


def open_gpu() -> Gpu:
    """Return the first visible device.

    Raises:
        StartError: torch can't use it, though its driver shows it.
    """
    from tgi_cli.runtime.platforms.cuda import CudaGpu

    try:
        return CudaGpu()
    except (RuntimeError, AssertionError) as exc:  # torch asserts that it was built with CUDA
        _log.exception("event=gpu_failed")
        raise StartError(
            "The GPU can't be used, though its driver shows it; the log has torch's reason.",
            hint="Give --device cpu to compute without it.",
        ) from exc


def load(config: EngineConfig, gpu: Gpu, parts: Parts) -> Loaded:
    """Load the model and run its first steps.

    Raises:
        CapacityError: memory ran out.
        UnsupportedModelError: the kernels can't do this model.
    """
    if devices.family(gpu.arch) is None:
        raise UnsupportedModelError(f"{gpu.name} is {gpu.arch}, which no kernel is made for.")
    staging = Staging(gpu)
    with _out_of_memory_is(_no_weights(gpu), gpu):
        attention = parts.attention(config, gpu, staging)
        model = parts.model(config, gpu, attention)

    def run_step(config: EngineConfig, plan: StepPlan) -> None:
        runner = GpuRunner(config, model, attention, gpu, staging)
        parts.sampler(config, gpu, runner, staging).sample(runner.run(plan), plan.sequences)

    try:
        config = with_measured_cache(config, gpu, run_step)
    except StartError:
        raise
    except Exception as exc:
        # The first launch of most kernels: here a device shows what it can't compile or run.
        _log.exception("event=first_step_failed")
        raise _kernels_fail(gpu) from exc
    with _out_of_memory_is(_no_cache(config), gpu):
        runner = GpuRunner(config, model, attention, gpu, staging)
        engine = OverlappedEngine(config, runner, parts.sampler(config, gpu, runner, staging))
    _log.info("Warming up model")
    try:
        engine.warm_up()
        runner.capture_graphs(config.cuda_graphs)
    except RuntimeError as exc:
        _log.exception("event=warm_up_failed")
        if runner.has_run_out_of_memory:
            raise too_many_prefill_tokens(config) from exc
        raise _kernels_fail(gpu) from exc  # those of few rows
    return Loaded(config, engine, runner, model.num_bytes, _describe(gpu, attention, runner))


def _no_weights(gpu: Gpu) -> CapacityError:
    memory = gpu.memory()
    return CapacityError(
        f"The model's weights don't fit the GPU: {show_bytes(memory.free_bytes)} of its "
        f"{show_bytes(memory.total_bytes)} were free.",
        hint="Use a smaller or a quantised model, or end what else uses the GPU.",
    )


def _kernels_fail(gpu: Gpu) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The kernels can't compute this model on {gpu.name}; the log has the reason.",
        hint="Give --device cpu to compute without the GPU.",
    )


def _no_cache(config: EngineConfig) -> CapacityError:
    return CapacityError(
        f"The GPU grants no memory for a KV cache of {config.num_blocks} blocks.",
        hint="Lower --cuda-memory-fraction or --max-batch-total-tokens.",
    )


@contextmanager
def _out_of_memory_is(error: CapacityError, gpu: Gpu) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        if gpu.is_out_of_memory(exc) or isinstance(exc, MemoryError):
            raise error from exc
        raise


def _describe(gpu: Gpu, attention: AttentionBackend, runner: GpuRunner) -> str:
    graphs = ",".join(map(str, runner.graph_sizes)) or "none"
    return (
        f"Triton on {gpu.name} ({gpu.arch}, tiles of {devices.family(gpu.arch)}); "
        f"attention: {attention.name}; cuda graphs: {graphs}"
    )
