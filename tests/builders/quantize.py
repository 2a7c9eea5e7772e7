"""`tgi quantize` in this process, on a tiny random model, with a screen that remembers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.serving import hardware
from tgi_cli.runtime.config.quantize import QuantizeOptions
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import Weights
from tgi_cli.runtime.quantize.pipeline import quantize

_TINY: dict[str, Any] = {"group_size": 32, "sequence_length": 24, "evaluation_samples": 2}
_CALIBRATED: dict[str, Any] = {"calibration": __file__, "num_samples": 3}


class RecordingScreen:
    """`on_layer` is called after each layer, as a terminal would be told of it."""

    def __init__(self, on_layer: Callable[[int], None] = lambda _: None) -> None:
        self._on_layer = on_layer
        self.lines: list[str] = []
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.layers: list[int] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def step(self, name: str) -> None: ...

    def advance(self, num_done: int, total: int, left_s: float) -> None:
        self.layers.append(num_done)
        self._on_layer(num_done)

    def report(self, text: str, as_json: bytes) -> None:
        self.reports.append((text, json.loads(as_json)))


def run_quantize(model: Path, output: Path, **changes: Any) -> RecordingScreen:
    """Quantise and return what was shown. `screen` may be given; nothing is measured by default."""
    screen = changes.pop("screen", None) or RecordingScreen()
    options = quantize_options(model, output, **changes)
    assert quantize(options, hardware(num_cores=1), screen) == 0
    return screen


def quantize_options(model: Path, output: Path, **changes: Any) -> QuantizeOptions:
    fields = {"model": str(model), "output": str(output), "evaluation": False, **_TINY, **changes}
    if fields.get("method") not in ("rtn", "int8"):
        fields = _CALIBRATED | fields
    return QuantizeOptions(**fields)


def tiny_model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """Write a random model in 16 bits."""
    write_tiny_checkpoint(folder, family, **{"dtype": torch.float16, **changes})
    return folder


def read_weights(folder: Path) -> Weights:
    """Return a checkpoint's tensors as they are served."""
    located = locate_model(str(folder))
    return Weights(WeightsReader(located.weights), located.config, "float32")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, without the speeds that `report.json` measured."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "README.md"
    }
    if "report.json" in found:
        report = json.loads(found["report.json"])
        for side in ("before", "after"):
            report[side] |= {"load_s": None, "decode_tokens_per_s": None}
        found["report.json"] = json.dumps(report).encode()
    return found
