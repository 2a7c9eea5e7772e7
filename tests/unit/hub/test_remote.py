"""Fetching from the hub, with the hub's client replaced at its edge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors

from tests.builders.checkpoints import write_tiny_checkpoint
from tgi_cli.errors import ModelNotFoundError
from tgi_cli.runtime.hub import remote
from tgi_cli.runtime.hub.locate import locate_model


def replace_hub(
    monkeypatch: pytest.MonkeyPatch, *, folder: Path | None = None, error: Exception | None = None
) -> list[dict[str, Any]]:
    """Make the hub answer with `folder` or fail with `error`; return what it was asked."""
    asked: list[dict[str, Any]] = []

    def model_info(self: Any, model_id: str, revision: str | None = None) -> SimpleNamespace:
        if error is not None:
            raise error
        return SimpleNamespace(sha="c0ffee", pipeline_tag="text-generation")

    def snapshot_download(model_id: str, **options: Any) -> str:
        asked.append({"model_id": model_id, **options})
        return str(folder)

    monkeypatch.setattr(remote.HfApi, "model_info", model_info)
    monkeypatch.setattr(remote, "snapshot_download", snapshot_download)
    monkeypatch.setattr(remote.constants, "HF_HUB_OFFLINE", False)
    return asked


def blank(kind: type[Exception]) -> Exception:
    """Return one of the hub's errors without the HTTP response that its constructor wants."""
    return kind.__new__(kind)


def test_a_repository_is_fetched_at_one_commit_and_without_code(tmp_path, monkeypatch):
    write_tiny_checkpoint(tmp_path)
    asked = replace_hub(monkeypatch, folder=tmp_path)

    located = locate_model("somebody/tiny", revision="main", cache_dir="cache")

    assert located.sha == "c0ffee"
    assert located.pipeline_tag == "text-generation"
    [request] = asked
    assert (request["revision"], request["cache_dir"]) == ("c0ffee", Path("cache"))
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in request["allow_patterns"])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (blank(errors.GatedRepoError), "access is restricted"),
        (blank(errors.RevisionNotFoundError), "no revision 'v9'"),
        (blank(errors.RepositoryNotFoundError), "no such repository"),
        (blank(errors.LocalEntryNotFoundError), "can't be reached"),
        (ConnectionError("no route"), "can't be reached"),
    ],
)
def test_the_hubs_errors_become_sentences(error, reason, monkeypatch):
    replace_hub(monkeypatch, error=error)

    with pytest.raises(ModelNotFoundError, match=f"somebody/tiny: .*{reason}"):
        locate_model("somebody/tiny", revision="v9")


def test_the_token_goes_to_the_hub(tmp_path, monkeypatch):
    write_tiny_checkpoint(tmp_path)
    asked = replace_hub(monkeypatch, folder=tmp_path)

    locate_model("somebody/tiny", token="hf_secret")

    assert asked[0]["token"] == "hf_secret"


@pytest.mark.parametrize("held_in", ["cache", "cache/hub", "."])
def test_a_repository_is_found_in_either_layout_of_the_cache(held_in, tmp_path, monkeypatch):
    write_tiny_checkpoint(tmp_path)
    asked = replace_hub(monkeypatch, folder=tmp_path)
    (tmp_path / held_in / "models--somebody--tiny" / "snapshots").mkdir(parents=True)

    locate_model("somebody/tiny", cache_dir=str(tmp_path / "cache"))

    assert asked[0]["cache_dir"] == tmp_path / held_in


def test_weights_from_another_folder_are_not_fetched(tmp_path, monkeypatch):
    small, weights = tmp_path / "small", tmp_path / "weights"
    write_tiny_checkpoint(small)
    weights.mkdir()
    (small / "model.safetensors").rename(weights / "model.safetensors")
    asked = replace_hub(monkeypatch, folder=small)

    located = locate_model("somebody/tiny", weights_folder=str(weights))

    assert located.weights.files == (str(weights / "model.safetensors"),)
    assert not any("safetensors" in pattern for pattern in asked[0]["allow_patterns"])
