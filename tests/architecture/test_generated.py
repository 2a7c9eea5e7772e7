from __future__ import annotations

import pytest

from tools.generate import ROOT, generated_files

FILES = generated_files()


@pytest.mark.parametrize("name", FILES)
def test_generated_files_are_what_the_code_says(name: str) -> None:
    path = ROOT / name

    assert path.is_file(), "run `make docs`"
    assert path.read_text(encoding="utf-8") == FILES[name], "run `make docs`"


def test_there_are_no_others() -> None:
    folders = ("docs/reference", "completions", "deploy/grafana")
    kept = [path for folder in folders for path in (ROOT / folder).iterdir()]

    assert {str(path.relative_to(ROOT)) for path in kept} == set(FILES)
