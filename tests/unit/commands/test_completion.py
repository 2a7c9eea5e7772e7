from __future__ import annotations

from pathlib import Path

import pytest

from tgi_cli.commands._completion import models


def make_cache(folder: Path) -> None:
    for name in ("models--org--name", "models--gpt2", "datasets--org--data"):
        (folder / name).mkdir(parents=True)


@pytest.mark.parametrize(
    ("variable", "below"),
    [("HF_HOME", "hub"), ("HF_HOME", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HUB_CACHE", "")],
)
def test_cached_models_are_offered_wherever_the_cache_is(
    tmp_path: Path, variable: str, below: str
) -> None:
    make_cache(tmp_path / below)

    found = models("", {variable: str(tmp_path)})

    assert [name for name in found if not name.endswith("/")][:3] == ["demo", "gpt2", "org/name"]


def test_folders_and_gguf_files_are_offered_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.gguf", "a.txt", ".hidden.gguf"):
        (tmp_path / name).touch()
    (tmp_path / "about").mkdir()
    monkeypatch.chdir(tmp_path)

    assert models("a", {"HF_HOME": "none"}) == ["a.gguf", "about/"]
    assert models("./a", {"HF_HOME": "none"}) == ["./a.gguf", "./about/"]
    assert models("nowhere/", {"HF_HOME": "none"}) == []
