"""What a run will do and need, known before it does anything: layers, bytes, memory, disk, time.

Everything that can be refused for its sizes is refused here.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tgi_cli.errors import ArgumentError, CapacityError, DiskSpaceError
from tgi_cli.runtime.config.quantize import QuantizeRecipe
from tgi_cli.runtime.config.start_notes import show_bytes
from tgi_cli.runtime.config.tensor_names import expected_tensors
from tgi_cli.runtime.quantize.grid import Grid
from tgi_cli.runtime.quantize.layouts import check_layout
from tgi_cli.runtime.quantize.solver import PROJECTIONS, TOKENS_TOGETHER
from tgi_cli.runtime.quantize.source import Source, layer_prefix
from tgi_cli.runtime.quantize.work_folder import partial_folder

_ROW_PARALLEL = ("self_attn.o_proj", "mlp.down_proj")  # cut along their inputs when sharded
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_PROGRAM_BYTES = 600_000_000  # Python, torch and its scratch memory
_LAYER_COPIES = 3  # fp32: as it is, as it becomes, and one projection's working copies
_GRAM_COPIES = 5  # the matrix, damped, decomposed, inverted, reordered
_STREAMS = 3  # of activations: into a layer, between its halves, and what o reads
_SEARCHED = 11  # candidates of AWQ's scales
_SLACK_BYTES = 64_000_000  # of disk


@dataclass(frozen=True, slots=True)
class Memory:
    """What each of the two parts takes at most, one after the other."""

    solving_bytes: int
    measuring_bytes: int  # 0: nothing is measured
    window_bytes: int  # of solving, for each calibration window
    num_windows: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Sizes in bytes. `flops` is a rough count of what there is to compute."""

    num_layers: int
    shapes: dict[str, tuple[int, int]]  # [N, K] of a layer's projections
    source_bytes: int
    output_bytes: int  # of the weights that are written
    memory: Memory
    disk_bytes: int  # at most, of OUTPUT.partial
    flops: float

    @property
    def memory_bytes(self) -> int:
        """The most at any time."""
        return max(self.memory.solving_bytes, self.memory.measuring_bytes)

    @property
    def num_quantized(self) -> int:
        return self.num_layers * sum(n * k for n, k in self.shapes.values())


def grid_of(recipe: QuantizeRecipe) -> Grid:
    return Grid(recipe.bits, recipe.group_size, recipe.symmetric)


def make_plan(
    source: Source, recipe: QuantizeRecipe, *, num_shard: int, num_evaluated_tokens: int
) -> RunPlan:
    """Count what quantising takes; 0 evaluated tokens stand for no evaluation.

    Raises:
        ArgumentError: the grid or the layout doesn't fit the model's sizes.
    """
    config = source.config
    prefix = layer_prefix(0)
    tensors = {
        name.removeprefix(prefix): shape
        for name, shape in expected_tensors(config).items()
        if name.startswith(prefix)
    }
    shapes = {name: _matrix(tensors[f"{name}.weight"]) for name in PROJECTIONS}
    grid_of(recipe).check({name: k for name, (_, k) in shapes.items()})
    check_layout(recipe, shapes)
    _check_shards(recipe, shapes, num_shard)
    item = _ITEM_BYTES[config.checkpoint_dtype]
    num_kept = sum(math.prod(expected_tensors(config)[name]) for name in source.kept_names)
    num_small = sum(math.prod(shape) for shape in tensors.values() if len(shape) == 1)
    packed = sum(_packed_bytes(recipe, n, k) for n, k in shapes.values())
    layer_bytes = packed + num_small * item
    output_bytes = num_kept * item + config.num_layers * layer_bytes
    num_params = sum(n * k for n, k in shapes.values())
    return RunPlan(
        num_layers=config.num_layers,
        shapes=shapes,
        source_bytes=source.located.weights.num_bytes,
        output_bytes=output_bytes,
        memory=_memory(source, recipe, shapes, output_bytes, num_evaluated_tokens),
        disk_bytes=output_bytes + config.num_layers * layer_bytes + _SLACK_BYTES,
        flops=_solving_flops(recipe, shapes) * config.num_layers
        + 2.0 * num_params * config.num_layers * num_evaluated_tokens * 3,
    )


def check_memory(plan: RunPlan, max_memory: int | None, available: int) -> None:
    """Raises `CapacityError` if the plan needs more than is allowed, or than there is."""
    limit = available if max_memory is None else max_memory
    if plan.memory_bytes > limit:
        reason = "are free" if max_memory is None else "--max-memory allows"
        raise CapacityError(
            f"Quantising needs {show_bytes(plan.memory_bytes)} of memory; {show_bytes(limit)} "
            f"{reason}.",
            hint=_memory_hint(plan.memory, limit),
        )


def _memory_hint(memory: Memory, limit: int) -> str:
    """Say what would fit."""
    solving = memory.solving_bytes
    without_windows = solving - memory.num_windows * memory.window_bytes
    is_measuring_too_much = memory.measuring_bytes > limit
    if solving <= limit:
        return f"Measuring takes it, and solving {show_bytes(solving)}: add --no-evaluation."
    if memory.num_windows and without_windows + memory.window_bytes <= limit:
        num_fitting = (limit - without_windows) // memory.window_bytes
        also = ", and add --no-evaluation" if is_measuring_too_much else ""
        return f"Use --num-samples {num_fitting}, or shorter sequences{also}."
    least = show_bytes(without_windows + (memory.window_bytes if memory.num_windows else 0))
    return f"One layer takes {least}, whatever the options are: use a machine with more memory."


def check_disk(plan: RunPlan, output: Path) -> None:
    """Raises `DiskSpaceError` if the disk has no room for what will be written."""
    folder = output.parent
    while not folder.exists():
        folder = folder.parent
    work = partial_folder(output)
    used = sum(p.stat().st_size for p in work.rglob("*") if p.is_file()) if work.exists() else 0
    free = shutil.disk_usage(folder).free
    if plan.disk_bytes - used > free:
        raise DiskSpaceError(
            f"Quantising writes {show_bytes(plan.disk_bytes - used)} beside {output.name}; the "
            f"disk has {show_bytes(free)} free.",
            hint="Free space, or write to another disk.",
        )


def estimate_s(plan: RunPlan) -> float:
    """Return roughly how many seconds the plan takes here, after timing one product."""
    a = torch.randn(768, 768)
    a @ a
    began = time.perf_counter()
    for _ in range(4):
        a @ a
    flops_per_s = 4 * 2 * 768**3 / (time.perf_counter() - began)
    return plan.flops / flops_per_s


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    num_out, num_in = shape
    return num_out, num_in


def _check_shards(
    recipe: QuantizeRecipe, shapes: dict[str, tuple[int, int]], num_shard: int
) -> None:
    if num_shard == 1:
        return
    for name, (num_out, num_in) in shapes.items():
        is_by_rows = name in _ROW_PARALLEL
        size = num_in if is_by_rows else num_out
        unit = max(recipe.group_size, 8) if is_by_rows else 8
        if is_by_rows and (recipe.group_size == -1 or recipe.desc_act):
            unit = 8  # every device keeps all scales
        if size % (num_shard * unit):
            raise ArgumentError(
                f"--num-shard {num_shard}: {name} has {size} "
                f"{'inputs' if is_by_rows else 'outputs'}, which can't be cut into {num_shard} "
                f"parts of whole {'groups' if is_by_rows else 'words'} of {unit}.",
                hint="Use a smaller --group-size." if is_by_rows and unit > 8 else None,
            )


def _packed_bytes(recipe: QuantizeRecipe, num_out: int, num_in: int) -> int:
    num_groups = 1 if recipe.group_size == -1 else num_in // recipe.group_size
    index = 4 * num_in if recipe.format == "gptq" else 0
    zeros_and_scales = num_groups * num_out * (recipe.bits + 16) // 8
    return num_out * num_in * recipe.bits // 8 + zeros_and_scales + index


def _memory(
    source: Source,
    recipe: QuantizeRecipe,
    shapes: dict[str, tuple[int, int]],
    output_bytes: int,
    num_evaluated_tokens: int,
) -> Memory:
    config = source.config
    layer = 4 * sum(n * k for n, k in shapes.values())
    widest = max(k for _, k in shapes.values())
    hidden = config.hidden_size
    streams = (_STREAMS - 1 + _aims(recipe)) * hidden + shapes["self_attn.o_proj"][1]
    grams = _GRAM_COPIES * widest * widest * 4 if recipe.is_calibrated else 0
    together = max(TOKENS_TOGETHER, recipe.sequence_length)
    chunk = 4 * together * (3 * widest + 2 * hidden)
    window = 4 * recipe.sequence_length * streams
    solving = _LAYER_COPIES * layer + grams + chunk + recipe.num_samples * window
    measuring = 0
    if num_evaluated_tokens:
        item = _ITEM_BYTES[config.checkpoint_dtype]
        whole = source.located.weights.num_parameters * item
        rounded = config.num_layers * layer  # plain rounding is measured in fp32
        head = config.vocab_size * config.hidden_size * item
        kept = num_evaluated_tokens * config.hidden_size * 4
        measuring = max(whole, output_bytes, rounded + head) + head + kept + _PROGRAM_BYTES
    return Memory(solving + _PROGRAM_BYTES, measuring, window, recipe.num_samples)


def _solving_flops(recipe: QuantizeRecipe, shapes: dict[str, tuple[int, int]]) -> float:
    num_params = sum(n * k for n, k in shapes.values())
    if not recipe.is_calibrated:
        return 20.0 * num_params
    tokens = recipe.num_samples * recipe.sequence_length
    inputs = [k for name, (_, k) in shapes.items() if not name.endswith((".k_proj", ".v_proj"))]
    # The quantised stream passes once for the inputs and once as it is stored.
    forwards = 2.0 * num_params * tokens * (2 + _aims(recipe))
    grams = sum(2.0 * k * k * tokens for k in inputs) * (1 + _aims(recipe))
    solves = sum(5.0 * n * k * k + 4.0 * k**3 for n, k in shapes.values())
    searches = _SEARCHED * sum(2.0 * n * k * k for n, k in shapes.values())
    return forwards + grams + solves + (searches if recipe.method == "awq" else 0.0)


def _aims(recipe: QuantizeRecipe) -> bool:
    """Say whether the original's activations are kept too (`methods.py`)."""
    return "gptq" in recipe.method
