"""How many KV blocks fit a GPU: what is left once the model has run its largest step.

    blocks = (share * total - in use - held by the step - reserve for graphs) * wiggle room / block

In use is what the device itself says, the weights, the driver's own and other processes included.
The largest step is measured over a cache of its own, which is gone before the real one is made.
All in bytes unless a name says otherwise. Spec: launcher-options.md section 4.3.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tgi_cli.errors import CapacityError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.config.start_notes import show_bytes
from tgi_cli.runtime.engine.loaded import too_many_prefill_tokens
from tgi_cli.runtime.engine.plan import Chunk, StepPlan
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.platforms.gpu import Gpu
from tgi_cli.runtime.types import SamplingParams

_log = logging.getLogger(__name__)
_GRAPH_BYTES = 16 << 20  # of the driver's for each graph: an assumption, not measured yet

RunStep = Callable[[EngineConfig, StepPlan], None]
"""Makes a KV cache as the config says, computes the plan over it, and lets go of both."""


@dataclass(frozen=True, slots=True)
class Room:
    """How the memory of a device is spent, in bytes."""

    granted: int  # the share that may be used
    in_use: int
    step: int  # held at once while the largest step ran
    graphs: int

    @property
    def left(self) -> int:
        return self.granted - self.in_use - self.step - self.graphs


def with_measured_cache(config: EngineConfig, gpu: Gpu, run_step: RunStep) -> EngineConfig:
    """Return `config` with the KV blocks that fit, at most those that it asks for.

    Raises:
        CapacityError: the largest step doesn't fit beside the weights, or no block beside both.
    """
    room = measure_room(config, gpu, run_step)
    num_fitting = int(room.left * config.wiggle_room // block_bytes(config))
    _log.info(
        "event=memory_measured granted=%s in_use=%s step=%s graphs=%s fitting_blocks=%d",
        *(show_bytes(part) for part in (room.granted, room.in_use, room.step, room.graphs)),
        num_fitting,
    )
    if num_fitting < 1:
        raise CapacityError(
            f"The GPU has no memory left for a KV cache: {show_bytes(room.granted)} may be used, "
            f"{show_bytes(room.in_use)} are in use, the largest step takes {show_bytes(room.step)} "
            f"and CUDA graphs {show_bytes(room.graphs)}.",
            hint="Lower --max-batch-prefill-tokens, raise --cuda-memory-fraction, or end what "
            "else uses the GPU.",
        )
    return with_blocks(config, min(config.num_blocks, num_fitting))


def measure_room(config: EngineConfig, gpu: Gpu, run_step: RunStep) -> Room:
    """Run the largest step and read what it took.

    Raises:
        CapacityError: it ran out of memory.
    """
    plan = largest_step(config)
    num_blocks = sum(len(chunk.new_blocks) for chunk in plan.chunks)
    gpu.empty_cache()
    gpu.reset_peak()
    before = gpu.allocated_bytes()
    try:
        run_step(msgspec.structs.replace(config, num_blocks=num_blocks), plan)
        gpu.synchronize()
    except Exception as exc:
        if not gpu.is_out_of_memory(exc):
            raise
        raise too_many_prefill_tokens(config) from exc
    held = gpu.peak_bytes() - before - num_blocks * block_bytes(config)
    gc.collect()  # what the step leaves may refer to itself
    gpu.empty_cache()
    memory = gpu.memory()
    step_bytes = max(0, held)
    return Room(
        granted=int(memory.total_bytes * config.memory_fraction),
        in_use=memory.total_bytes - memory.free_bytes,
        step=step_bytes,
        graphs=_graphs_bytes(config, step_bytes),
    )


def largest_step(config: EngineConfig) -> StepPlan:
    """Return the step that takes most: all its tokens, and as many sequences as can share them.

    Sequences hold one token each, and the first ones what is left, as far as their length allows.
    """
    num_sequences = min(config.max_running, config.max_step_tokens)
    lengths = [1] * num_sequences
    left = config.max_step_tokens - num_sequences
    for row in range(num_sequences):
        more = min(left, max(0, config.max_total_tokens - 2))
        lengths[row] += more
        left -= more
    plan = StepPlan(budget=0)
    next_block = 0
    for row, length in enumerate(lengths):
        seq = Sequence(NewRequest(-1 - row, [0] * length, 1, SamplingParams()))
        seq.row = row
        past_end = next_block + -(-length // config.block_size)
        seq.block_table = list(range(next_block, past_end))
        plan.chunks.append(Chunk(seq, 0, length, seq.block_table))
        next_block = past_end
    return plan


def block_bytes(config: EngineConfig) -> int:
    """Return the bytes of a KV block of all layers."""
    model = config.model
    itemsize = {"fp8_e4m3fn": 1, "fp8_e5m2": 1, "float32": 4}.get(config.kv_cache_dtype, 2)
    values = 2 * model.num_layers * model.num_kv_heads * model.head_dim
    return values * itemsize * config.block_size


def with_blocks(config: EngineConfig, num_blocks: int) -> EngineConfig:
    """Return `config` with that many blocks, and limits that they can hold."""
    num_tokens = num_blocks * config.block_size
    max_running = min(config.max_running, num_blocks)
    return msgspec.structs.replace(
        config,
        num_blocks=num_blocks,
        max_running=max_running,
        max_total_tokens=min(config.max_total_tokens, num_tokens),
        max_step_tokens=min(config.max_step_tokens, num_tokens),
        cuda_graphs=tuple(sorted({min(size, max_running) for size in config.cuda_graphs})),
    )


def _graphs_bytes(config: EngineConfig, step_bytes: int) -> int:
    """Return what to keep free for graphs, which share the memory of the largest one.

    They end before the head, so that what they hold grows with their rows.
    """
    if not config.cuda_graphs:
        return 0
    shared = step_bytes * max(config.cuda_graphs) // config.max_step_tokens
    return len(config.cuda_graphs) * _GRAPH_BYTES + shared
