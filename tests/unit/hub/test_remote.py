"""`tgi serve` fetches by the walk of `tgi download`, from a hub of our own."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.download import MODEL, Downloads, downloading
from tests.builders.files import gguf_bytes
from tests.builders.hub import Fault
from tgi_cli.errors import ModelNotFoundError, UnsupportedModelError
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.hub.remote import fetch


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[Downloads]:
    with downloading(tmp_path) as found:
        yield found


def publish(downloads: Downloads, tmp_path: Path, **more: bytes) -> str:
    write_tiny_checkpoint(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    return downloads.hub.publish(files | more)


def locate(downloads: Downloads, model_id: str = MODEL, **options: str) -> LocatedModel:
    return locate_model(model_id, cache_dir=str(downloads.cache), **options)


def test_a_repository_is_fetched_at_one_commit_and_without_code(downloads, tmp_path):
    more = {"modeling_tiny.py": b"code", "pytorch_model.bin": b"a pickle"}
    commit = publish(downloads, tmp_path, **more)

    located = locate(downloads, revision="main")

    assert (located.sha, located.pipeline_tag) == (commit, "text-generation")
    assert not [asked for asked in downloads.hub.asked if asked.path.endswith((".py", ".bin"))]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=403, headers={"X-Error-Code": "GatedRepo"}), "access is restricted"),
        (Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"}), "no revision 'v9'"),
        (Fault(status=404, headers={"X-Error-Code": "RepoNotFound"}), "no such repository"),
        (Fault(cut_at=3), "the connection broke off"),
    ],
)
def test_the_hubs_refusals_become_sentences(fault, reason, downloads, tmp_path):
    publish(downloads, tmp_path)
    downloads.hub.fail("info", *[fault] * 6)

    with pytest.raises(ModelNotFoundError, match=f"{MODEL}: .*{re.escape(reason)}"):
        locate(downloads, revision="v9")


def test_the_token_goes_to_the_hub(downloads, tmp_path):
    publish(downloads, tmp_path)

    locate(downloads, token="hf_secret")

    assert downloads.hub.asked[0].headers["authorization"] == "Bearer hf_secret"


@pytest.mark.parametrize("held_in", ["cache", "cache/hub", "."])
def test_a_repository_is_found_in_either_layout_of_the_cache(held_in, downloads, tmp_path):
    publish(downloads, tmp_path)
    locate_model(MODEL, cache_dir=str(tmp_path / held_in))
    num_asked = len(downloads.hub.asked)

    locate_model(MODEL, cache_dir=str(tmp_path / "cache"))

    assert len(downloads.hub.asked) == num_asked + 1


def test_weights_from_another_folder_are_not_fetched(downloads, tmp_path):
    publish(downloads, tmp_path)

    located = locate(downloads, weights_folder=str(tmp_path / "made"))

    assert located.weights.files == (str(tmp_path / "made" / "model.safetensors"),)
    assert not downloads.hub.asked_for("model.safetensors")


def test_a_hub_that_is_down_is_no_reason_not_to_serve_what_is_here(downloads, tmp_path, caplog):
    commit = publish(downloads, tmp_path)
    locate(downloads)
    downloads.hub.fail("info", *[Fault(status=503)] * 6)

    with caplog.at_level(logging.WARNING):
        located = locate(downloads)

    assert located.sha == commit
    assert f"The copy in the cache is used: commit {commit}" in caplog.text


def test_half_a_copy_is_not_served_when_the_hub_is_down(downloads, tmp_path):
    publish(downloads, tmp_path)
    downloads.hub.fail("model.safetensors", Fault(cut_at=500), *[Fault(status=503)] * 6)
    with pytest.raises(ModelNotFoundError):
        locate(downloads)
    downloads.hub.fail("info", *[Fault(status=503)] * 6)

    with pytest.raises(ModelNotFoundError, match="status 503"):
        locate(downloads)


def test_a_gguf_repository_names_the_file_to_load(downloads):
    gguf = gguf_bytes({"general.architecture": "llama"}, {"w": ("F32", [1], bytes(4))})
    names = ["tiny.Q4_K_M.gguf", "tiny.Q8_0.gguf", "README.md"]
    downloads.hub.publish(dict.fromkeys(names, gguf))

    fetched = fetch(f"{MODEL}:q8_0", None, str(downloads.cache))

    assert fetched.gguf_file == "tiny.Q8_0.gguf"
    assert downloads.placed() == {"tiny.Q8_0.gguf"}


def test_a_choice_that_the_user_must_make_ends_a_start_with_code_1(downloads):
    downloads.hub.publish(dict.fromkeys(["a.Q4_0.gguf", "a.Q8_0.gguf"], b"GGUF"))

    with pytest.raises(UnsupportedModelError, match="2 GGUF files would do") as failure:
        locate(downloads)

    assert failure.value.exit_code == 1
    assert "a.Q4_0.gguf" in str(failure.value.hint)


def test_progress_of_a_start_is_in_the_log(downloads, tmp_path, caplog):
    publish(downloads, tmp_path)

    with caplog.at_level(logging.INFO, "tgi_cli"):
        locate(downloads)

    assert re.search(r"download: \d file\(s\), .* kB", caplog.text)
    assert "downloaded: " in caplog.text
