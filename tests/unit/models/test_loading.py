"""What loading costs in memory, seen from a fresh process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

MEASURE = """
import json
import sys
from pathlib import Path

import torch

from tgi_cli.kernels.paged_attention import choose
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.layers.placement import CPU, on_gpu
from tgi_cli.runtime.models.loader import load_model


def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


located = locate_model("demo")
if sys.argv[1] == "triton":
    import triton  # large itself
before = memory("VmRSS")
placement = on_gpu(torch.device("cpu"), torch.float16) if sys.argv[1] == "triton" else CPU
model = load_model(located.config, located.weights, "float16", choose(9, 3, 64), placement)
print(json.dumps({"weights": model.num_bytes, "peak": memory("VmHWM") - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kernels", ["native", "triton"])
def test_loading_peaks_below_1_3_times_the_weights(kernels):
    if kernels == "triton" and importlib.util.find_spec("triton") is None:
        pytest.skip("triton isn't installed")
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, kernels],
        capture_output=True,
        text=True,
        check=True,
    )

    measured = json.loads(result.stdout.splitlines()[-1])
    assert measured["weights"] > 250_000_000
    assert measured["peak"] < 1.3 * measured["weights"]
