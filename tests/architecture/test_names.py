"""What no tracked file may name: paths of one machine and hosts of package registries.

A README that only works on its author's machine, or a build that names a registry, breaks for
everyone whose network is set up otherwise. pip's own configuration says which registry it uses.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.imports import ROOT

BANNED = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:home|Users|root|work)/\w"),
    "the host of a package registry": re.compile(
        r"(?:files\.pythonhosted|pypi|test\.pypi|download\.pytorch|registry\.npmjs)\."
        r"(?:org|com)"
    ),
}
MISSPELLINGS = re.compile(
    r"\b(?:recieve|seperat|occured|untill|lenght|wich|teh|existant|neccessary|succesful)\w*", re.I
)
BINARY_SUFFIXES = {".png", ".gguf", ".safetensors", ".so", ".ico"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file() and path.suffix not in BINARY_SUFFIXES]


@pytest.mark.parametrize("reason", BANNED)
def test_no_file_names(reason: str) -> None:
    this_file = Path(__file__)

    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked_files()
        if path != this_file
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BANNED[reason].search(line)
    ]

    assert not found, f"names {reason}"


def test_common_words_are_spelled_right() -> None:
    this_file = Path(__file__)

    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        if path != this_file
        for match in MISSPELLINGS.finditer(path.read_text(encoding="utf-8"))
    ]

    assert not found
