"""Without a network: what the cache holds is enough, or what lacks is named."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from tests.builders.download import INDEX, MODEL, Downloads, model_files, weights
from tests.builders.hub import Fault
from tgi_cli.errors import ModelNotFoundError, StartError, UsageError, VerificationError
from tgi_cli.runtime.config.download import DownloadOptions

FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
SHARDS = {FIRST: weights(name="w1"), SECOND: weights(name="w2")}
SHARDED_INDEX = json.dumps({"weight_map": {"w1": FIRST, "w2": SECOND}}).encode()
SHARDED = model_files(**SHARDS, **{INDEX: SHARDED_INDEX})


@pytest.fixture
def _no_sockets(downloads: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the cache, and refuse every socket from then on."""
    downloads.hub.publish(SHARDED)
    downloads.get()

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_no_sockets")
@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_whole_copy_is_enough_and_no_socket_is_opened(
    way: str, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", way == "variable")

    obtained = downloads.get(is_offline=way == "option")

    assert {file.name for file in obtained.files} >= {"config.json", INDEX, *SHARDS}
    assert obtained.folder.is_dir()
    assert obtained.revision == "main"


@pytest.mark.usefixtures("_no_sockets")
def test_the_commit_itself_is_a_revision_too(downloads: Downloads) -> None:
    commit = downloads.get(is_offline=True).commit

    assert downloads.get(f"{MODEL}@{commit}", is_offline=True).commit == commit


@pytest.mark.usefixtures("_no_sockets")
@pytest.mark.parametrize("name", ["config.json", SECOND])
def test_a_file_that_lacks_is_named(name: str, downloads: Downloads) -> None:
    folder = downloads.get(is_offline=True).folder
    (folder / name).resolve().unlink()

    with pytest.raises(ModelNotFoundError, match=f"{MODEL}: {name} isn't in the cache") as failure:
        downloads.get(is_offline=True)

    assert "HF_HUB_OFFLINE" in str(failure.value.hint)


@pytest.mark.usefixtures("_no_sockets")
@pytest.mark.parametrize(
    ("model_id", "lacking"), [("other/model", "'main'"), (f"{MODEL}@v2", "'v2'")]
)
def test_a_model_or_revision_that_was_never_fetched_is_named(
    model_id: str, lacking: str, downloads: Downloads
) -> None:
    with pytest.raises(ModelNotFoundError, match=f"revision {lacking} isn't in the cache"):
        downloads.get(model_id, is_offline=True)


@pytest.mark.usefixtures("_no_sockets")
def test_a_damaged_copy_is_told_and_kept(downloads: Downloads) -> None:
    path = downloads.get(is_offline=True).folder / FIRST
    damaged = bytes(path.stat().st_size)
    path.resolve().write_bytes(damaged)

    with pytest.raises(VerificationError, match=f"{path.name} in the cache is damaged"):
        downloads.get(is_offline=True)

    assert path.read_bytes() == damaged


def test_half_a_download_is_no_model(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail("model.safetensors", Fault(cut_at=5_000), *[Fault(status=503)] * 6)
    with pytest.raises(StartError):
        downloads.get(num_workers=1)

    with pytest.raises(ModelNotFoundError):
        downloads.get(is_offline=True)


def test_a_plain_folder_cant_be_made_offline() -> None:
    with pytest.raises(UsageError, match="can't be used offline"):
        DownloadOptions(model_id=MODEL, local_dir=Path("x"), is_offline=True)
