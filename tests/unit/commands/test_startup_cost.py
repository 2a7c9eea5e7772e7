"""`tgi --help` must answer at once: what it may not load, and what it may cost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "aiohttp", "huggingface_hub", "tokenizers", "jinja2", "rich")


def test_the_command_line_loads_nothing_heavy() -> None:
    program = "import sys, tgi_cli.app; print(*sys.modules)"

    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert not set(HEAVY) & set(output.split())


@pytest.mark.perf
@pytest.mark.parametrize("args", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_takes_less_than_0_3_seconds_of_computing(args: list[str]) -> None:
    before = os.times()
    subprocess.run([sys.executable, "-m", "tgi_cli", *args], capture_output=True, check=True)
    after = os.times()

    used_s = after.children_user + after.children_system
    used_s -= before.children_user + before.children_system
    assert used_s < 0.3
