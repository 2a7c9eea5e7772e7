"""Plans and reports for people: tables that are read in a terminal and in a model card alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from tgi_cli.runtime.config.quantize import QuantizeRecipe
from tgi_cli.runtime.config.start_notes import show_bytes
from tgi_cli.runtime.quantize.plan import RunPlan
from tgi_cli.runtime.quantize.report import Evaluation, Quality, Report, Side
from tgi_cli.runtime.quantize.work_folder import LayerRecord

_NOT_MEASURED = "not measured"


def report_text(report: Report) -> str:
    """Return the summary: quality, size and speed, and where the loss is."""
    worst = _worst_projections(report.layers)
    return "\n\n".join(
        [
            f"{report.model}: {describe_recipe(report.recipe)}",
            quality_table(report.quality, report.rounding),
            measured_on(report.evaluation_text, report.quality),
            side_table(report.before, report.after),
            *([worst] if worst else []),
        ]
    )


def evaluation_text(found: Evaluation) -> str:
    """Return the figures of `--evaluate`."""
    return "\n\n".join(
        [
            f"{found.model} against {found.against}",
            quality_table(found.quality, None),
            measured_on(found.evaluation_text, found.quality),
            side_table(found.before, found.after),
        ]
    )


def plan_text(recipe: QuantizeRecipe, plan: RunPlan, seconds: float) -> tuple[str, bytes]:
    """Return the plan as a table and as JSON. Nothing has been written."""
    rows = [
        ("method", describe_recipe(dataclasses.asdict(recipe))),
        ("layers", f"{plan.num_layers}, of {len(plan.shapes)} projections each"),
        ("weights that are quantised", f"{plan.num_quantized:,}"),
        ("source", show_bytes(plan.source_bytes)),
        ("result", show_bytes(plan.output_bytes)),
        ("disk while it works", show_bytes(plan.disk_bytes)),
        ("memory at most", show_bytes(plan.memory_bytes)),
        ("time, roughly", show_duration(seconds)),
    ]
    table = _table(("plan", ""), [*rows, *_shape_rows(plan)])
    json = {
        "recipe": dataclasses.asdict(recipe),
        "num_layers": plan.num_layers,
        "projections": {name: list(shape) for name, shape in plan.shapes.items()},
        "source_bytes": plan.source_bytes,
        "output_bytes": plan.output_bytes,
        "disk_bytes": plan.disk_bytes,
        "memory_bytes": plan.memory_bytes,
        "seconds": seconds,
    }
    return table, msgspec.json.encode(json)


def describe_recipe(recipe: dict[str, str | int | float | bool | None]) -> str:
    """Return method, grid and layout in a few words."""
    group = "one group a row" if recipe["group_size"] == -1 else f"groups of {recipe['group_size']}"
    symmetry = "symmetric" if recipe["symmetric"] else "asymmetric"
    order = ", act-order" if recipe["desc_act"] else ""
    layout = {"gptq": "AutoGPTQ files", "awq": "AutoAWQ GEMM files"}[str(recipe["format"])]
    by = "" if recipe["backend"] == "own" else f" by {recipe['backend']}"
    return f"{recipe['method']}{by}, {recipe['bits']} bits, {group}, {symmetry}{order}, {layout}"


def quality_table(quality: Quality | None, rounding: Quality | None) -> str:
    """Return the figures, beside those of plain rounding where it was measured."""
    original = None if quality is None else quality.original_perplexity
    columns = [quality] if rounding is None else [quality, rounding]
    rows = [
        ("perplexity", _number(original), *map(_perplexity, columns)),
        ("KL divergence, mean", "0", *(_figure(each, "mean_kl") for each in columns)),
        ("KL divergence, 99th percentile", "0", *(_figure(each, "p99_kl") for each in columns)),
        ("same most likely token", "100.0%", *map(_share, columns)),
        ("same greedy continuation", "all", *map(_greedy, columns)),
        ("tokens before they differ", "100.0%", *map(_same, columns)),
    ]
    names = ("quantised", "plain rounding")[: len(columns)]
    return _table(("quality", "original", *names), rows)


def measured_on(text: str | None, quality: Quality | None) -> str:
    """Return what the figures of `quality_table` are of, with their units."""
    if quality is None:
        return "Not measured."
    greedy = quality.greedy
    prompts = "" if greedy is None else (
        f" Greedy continuations are of {greedy.num_prompts} prompts out of it; 'before they "
        "differ' is the share of their tokens before the first other one."
    )  # fmt: skip
    return (
        f"Measured on {quality.num_tokens:,} tokens of text that ships with tgi ({text}), each "
        "with the text before it. KL divergence is in nats, from the original's next-token "
        f"distribution to the quantised one's.{prompts}"
    )


def side_table(before: Side, after: Side) -> str:
    """Return size and speed of both models."""
    sides = (before, after)
    rows = [
        ("files", *(show_bytes(side.file_bytes) for side in sides)),
        ("weights in memory", *(_bytes(side.memory_bytes) for side in sides)),
        ("load", *(_with_unit(side.load_s, "s") for side in sides)),
        (
            "decode, one request",
            *(_with_unit(side.decode_tokens_per_s, "tokens/s") for side in sides),
        ),
    ]
    return _table(("size and speed", "original", "quantised"), rows)


def layer_table(layers: Sequence[LayerRecord]) -> str:
    """Return the error and damping of every projection; empty if none was measured."""
    rows = [
        (
            f"{layer.index}.{projection.name}",
            f"{projection.relative_loss:.2e}",
            "none" if projection.damping is None else f"{projection.damping:.4g}",
        )
        for layer in layers
        for projection in layer.projections
        if projection.relative_loss is not None
    ]
    return _table(("projection", "relative error", "damping"), rows) if rows else ""


def show_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _worst_projections(layers: Sequence[LayerRecord]) -> str:
    errors = [
        (projection.relative_loss, f"{layer.index}.{projection.name}")
        for layer in layers
        for projection in layer.projections
        if projection.relative_loss is not None
    ]
    rows = [(name, f"{error:.2e}") for error, name in sorted(errors, reverse=True)[:5]]
    return _table(("largest errors", "of the output's square"), rows) if rows else ""


def _shape_rows(plan: RunPlan) -> list[tuple[str, str]]:
    return [
        (name, f"{out} outputs, {inputs} inputs") for name, (out, inputs) in plan.shapes.items()
    ]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table whose columns stand below one another."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = line(["-" * width for width in widths])
    return "\n".join([line(head), rule, *map(line, rows)])


def _perplexity(quality: Quality | None) -> str:
    if quality is None:
        return _NOT_MEASURED
    return f"{quality.perplexity:.4g} ({quality.perplexity_increase:+.2%})"


def _figure(quality: Quality | None, name: str) -> str:
    return _NOT_MEASURED if quality is None else f"{getattr(quality, name):.4f}"


def _share(quality: Quality | None) -> str:
    return _NOT_MEASURED if quality is None else f"{quality.top1:.1%}"


def _greedy(quality: Quality | None) -> str:
    if quality is None or quality.greedy is None:
        return _NOT_MEASURED
    return f"{quality.greedy.num_identical} of {quality.greedy.num_prompts} prompts"


def _same(quality: Quality | None) -> str:
    if quality is None or quality.greedy is None:
        return _NOT_MEASURED
    return f"{quality.greedy.same_tokens:.1%}"


def _number(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{value:.4g}"


def _digits(value: float) -> str:
    """Return three digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(value: int | None) -> str:
    return _NOT_MEASURED if value is None else show_bytes(value)


def _with_unit(value: float | None, unit: str) -> str:
    return _NOT_MEASURED if value is None else f"{_digits(value)} {unit}"
