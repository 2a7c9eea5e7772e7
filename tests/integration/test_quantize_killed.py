"""`kill -9` at chosen moments of `tgi quantize`: going on gives the bytes of a run left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.builders.quantize import contents, quantize_options, run_quantize, tiny_model
from tgi_cli.runtime.quantize.work_folder import partial_folder

# The process kills itself when a function is called for the so-many-th time, so that the moment is
# always the same one.
_PROGRAM = """
import importlib, os, signal, sys

import msgspec

from tgi_cli.commands._quantize_screen import QuantizeLines
from tgi_cli.runtime.config.facts import HardwareFacts
from tgi_cli.runtime.config.quantize import QuantizeOptions
from tgi_cli.runtime.quantize.pipeline import quantize

module, name, count, options = sys.argv[1:]
holder = importlib.import_module(f"tgi_cli.runtime.quantize.{module}")
function, left = getattr(holder, name), int(count)

def deadly(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)

setattr(holder, name, deadly)
quantize(
    msgspec.json.decode(options, type=QuantizeOptions),
    HardwareFacts(num_cores=1, available_memory_bytes=1 << 40),
    QuantizeLines(sys.stdout, sys.stderr),
)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def whole(model: Path) -> dict[str, bytes]:
    """What a run makes that nobody disturbs."""
    run_quantize(model, model.parent / "whole", method="awq+gptq")
    return contents(model.parent / "whole")


def run_killed(model: Path, output: Path, module: str, name: str, count: int) -> None:
    options: Any = quantize_options(model, output, method="awq+gptq")
    encoded = msgspec.json.encode(options).decode()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, module, name, str(count), encoded], check=False
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("module", "name", "count", "layers"),
    [
        ("work_folder", "write_tensors", 2, [2, 3]),  # as the second layer is to be stored
        ("work_folder", "write_file", 3, [2, 3]),  # stored, but without its record
        ("checkpoint", "write_small_files", 1, []),  # weights are there, config.json isn't
        ("work_folder", "sync", 1, []),  # the checkpoint is whole, and hasn't its name yet
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    model: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    module: str,
    name: str,
    count: int,
    layers: list[int],
) -> None:
    output = tmp_path / "out"
    run_killed(model, output, module, name, count)
    assert not output.exists()

    screen = run_quantize(model, output, method="awq+gptq", resume=True)

    assert screen.layers == layers
    assert contents(output) == whole
    assert not partial_folder(output).exists()
