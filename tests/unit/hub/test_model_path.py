"""What the user calls a model: a path, a name on the hub, or neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgi_cli.errors import ModelNotFoundError
from tgi_cli.runtime.hub.model_path import local_path


def test_what_is_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "m.gguf").touch()

    assert local_path("org/name") == Path("org/name")
    assert local_path("~/m.gguf") == tmp_path / "m.gguf"


@pytest.mark.parametrize(
    "name", ["org/name", "gpt2", "org/name@refs/pr/1", "", "a" * 5_000, "a\0b"]
)
def test_what_only_the_hub_may_know_is_left_to_it(name: str) -> None:
    assert local_path(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "./no",
        "/no",
        "~/no",
        "~nobody-of-that-name/x",
        "no/such/folder",
        "no.gguf",
        "/" * 5_000 + "a",
    ],
)
def test_what_can_only_be_a_path_is_told_if_it_is_not_here(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        local_path(name)
