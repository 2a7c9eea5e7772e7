"""The ready-made scripts in real shells: what a person sees after pressing the tab key."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.architecture.imports import ROOT

SHELLS = ("bash", "zsh", "fish")
SCRIPTS = ROOT / "completions"
_TIMEOUT_S = 20.0
CASES = [
    ("tgi he", "tgi health"),
    ("tgi serve --max-cli", "tgi serve --max-client-batch-size"),
    ("tgi serve --usage-stats no", "tgi serve --usage-stats no-stack"),
    ("tgi serve org/na", "tgi serve org/name"),
    ("tgi download org/na", "tgi download org/name"),
    ("tgi download --verify sh", "tgi download --verify sha256"),
    ("tgi serve --model-id ./mod", "tgi serve --model-id ./model.gguf"),
    ("tgi health --level de", "tgi health --level deep"),
    ("tgi bench --tokenizer ./mod", "tgi bench --tokenizer ./model.gguf"),
    ("tgi bench compare ./res", "tgi bench compare ./result.json"),
    ("tgi download demo --local-dir ./fol", "tgi download demo --local-dir ./folder/"),
    ("tgi quantize demo ./fol", "tgi quantize demo ./folder/"),
    ("tgi quantize org/name out --method awq+", "tgi quantize org/name out --method awq+gptq"),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home with `tgi` on its path, a cached model and a model's file."""
    command = tmp_path / "bin" / "tgi"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tgi_cli "$@"\n')
    command.chmod(0o755)
    (tmp_path / ".cache/huggingface/hub/models--org--name").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    for name in ("model.gguf", "result.json"):
        (tmp_path / name).touch()
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
        "PS1": "$ ",
        "LC_ALL": "C.UTF-8",
    }


def typed_into_fish(line: str, home: Path) -> list[str]:
    script = f"source {SCRIPTS}/tgi.fish; complete --do-complete {line!r}"
    return [each.partition("\t")[0] for each in _run(["fish", "--no-config", "-c", script], home)]


def _run(command: list[str], home: Path) -> list[str]:
    done = subprocess.run(
        command, env=environment(home), cwd=home, capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    return done.stdout.split("\n")


def typed_into_bash(line: str, home: Path) -> list[str]:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    return _press_tab(shell, f"source {SCRIPTS}/tgi.bash", line, home)


def typed_into_zsh(line: str, home: Path) -> list[str]:
    setup = f"autoload -Uz compinit; compinit -u; source {SCRIPTS}/tgi.zsh"
    return _press_tab(["zsh", "-f", "-i"], setup, line, home)


def _press_tab(shell: list[str], setup: str, line: str, home: Path) -> list[str]:
    """Press the tab key in a shell of its own, and return the words that the line then has."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(home)
        os.execvpe(shell[0], shell, environment(home))
    try:
        os.write(terminal, f"{setup}; echo re''ady\n".encode())
        _read_until(terminal, "\nready")
        os.write(terminal, f"{line}\t".encode())
        expected = next(whole for start, whole in CASES if start == line)
        return _read_until(terminal, expected.rsplit(" ", 1)[1]).split()
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def _read_until(terminal: int, text: str) -> str:
    seen, deadline = "", time.monotonic() + _TIMEOUT_S
    while text not in seen.replace("\r", ""):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([terminal], [], [], left_s)[0]:
            raise AssertionError(f"{text!r} didn't come: {seen!r}")
        seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(terminal, 4096).decode())
    return seen.replace("\r", "")


PRESS_TAB = {"bash": typed_into_bash, "zsh": typed_into_zsh, "fish": typed_into_fish}


@pytest.mark.parametrize(("line", "whole"), CASES)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, line: str, whole: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed")

    offered = PRESS_TAB[shell](line, home)

    assert whole.rsplit(" ", 1)[1] in offered


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_set_up_by_the_command(shell: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed")
    line, whole = CASES[0]

    _run([shell, "-c", "tgi --install-completion; true"], home)  # a shell of its own looks for it

    if shell == "fish":
        offered = _run(["fish", "-c", f"complete --do-complete {line!r}"], home)
        assert [each.partition("\t")[0] for each in offered if each] == ["health"]
    else:
        assert whole.rsplit(" ", 1)[1] in _press_tab([shell, "-i"], "true", line, home)
