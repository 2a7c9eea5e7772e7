"""README.md of a quantised model: how it was made, and what it is worth."""

from __future__ import annotations

from tgi_cli.runtime.quantize.report import Report
from tgi_cli.runtime.quantize.report_text import (
    describe_recipe,
    layer_table,
    measured_on,
    quality_table,
    side_table,
)


def model_card(report: Report) -> str:
    """Return the card's Markdown, with the head that the hub reads."""
    recipe = report.recipe
    head = ["---", "tags:", f"- {recipe['format']}", "- quantized"]
    if "/" in report.model:  # a repository of the hub
        head += [f"base_model: {report.model}", "base_model_relation: quantized"]
    made = [
        f"{report.model}, quantised by `tgi quantize` {report.tgi_version}: "
        f"{describe_recipe(recipe)}.",
        _calibration(report),
    ]
    if recipe["backend"] == "own":
        made.append(
            "The same options on the same number of threads "
            f"({report.num_threads}, {report.device}) give the same weights to the last bit."
        )
    layers = layer_table(report.layers)
    parts = [
        "\n".join([*head, "---"]),
        f"# {report.model}, {recipe['bits']} bits",
        *made,
        "## Quality",
        measured_on(report.evaluation_text, report.quality),
        quality_table(report.quality, report.rounding),
        "## Size and speed",
        "Speed is of the machine that quantised it, with one request at a time.",
        side_table(report.before, report.after),
        "## Use",
        "```\ntgi serve FOLDER\n```",
    ]
    if layers:
        parts += [
            "## Error of each projection",
            "Mean squared error of its output over the calibration text, as a share of the "
            "output's mean square; damping as a share of the mean of the Hessian's diagonal.",
            layers,
        ]
    return "\n\n".join(parts) + "\n"


def _calibration(report: Report) -> str:
    if report.calibration is None:
        return "It was not calibrated on any text."
    recipe = report.recipe
    return (
        f"Calibrated on {report.num_calibration_tokens:,} tokens of the text {report.calibration} "
        f"({recipe['num_samples']} windows of {recipe['sequence_length']}, seed {recipe['seed']})."
    )
