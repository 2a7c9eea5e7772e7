"""What is fetched, from which commit and to where."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from tests.builders.download import INDEX, MODEL, Downloads, model_files, weights
from tests.builders.hub import Fault
from tgi_cli.errors import DiskSpaceError, ModelNotFoundError, StartError, VerificationError
from tgi_cli.runtime.hub.download import disk, partial_file

NEEDED = {"config.json", "tokenizer.json", "model.safetensors"}


def test_only_what_serving_needs_is_fetched(downloads: Downloads) -> None:
    commit = downloads.hub.publish(model_files())

    obtained = downloads.get()

    assert {file.name for file in obtained.files} == downloads.placed() == NEEDED
    assert (obtained.commit, obtained.revision) == (commit, "main")
    assert (obtained.folder / "model.safetensors").read_bytes() == weights()


def test_the_hubs_own_client_finds_what_was_fetched(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # requests of its own
    downloads.hub.publish(model_files())
    obtained = downloads.get()
    num_asked = len(downloads.hub.asked)

    found = try_to_load_from_cache(MODEL, "model.safetensors", cache_dir=downloads.cache)
    again = hf_hub_download(
        MODEL, "config.json", revision=obtained.commit, cache_dir=downloads.cache
    )

    assert found == str(obtained.folder / "model.safetensors")
    assert again == str(obtained.folder / "config.json")
    assert len(downloads.hub.asked) == num_asked


def test_a_second_run_asks_for_the_commit_and_fetches_nothing(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.get()
    num_asked = len(downloads.hub.asked)

    obtained = downloads.get()

    assert len(downloads.hub.asked) == num_asked + 1
    assert all(file.is_cached for file in obtained.files)


def test_a_whole_copy_needs_no_right_to_write(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.get()
    before = {path: path.lstat().st_mtime_ns for path in downloads.cache.rglob("*")}

    downloads.get()

    assert {path: path.lstat().st_mtime_ns for path in downloads.cache.rglob("*")} == before


def test_bytes_that_another_commit_brought_are_not_fetched_again(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.get()
    downloads.hub.publish(model_files(**{"config.json": b"{}"}))

    obtained = downloads.get()

    assert len(downloads.hub.asked_for("model.safetensors")) == 1
    assert (obtained.folder / "model.safetensors").read_bytes() == weights()
    assert (obtained.folder / "config.json").read_bytes() == b"{}"


def test_a_revision_that_moves_meanwhile_gives_files_of_one_commit(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = downloads.hub.publish(model_files())
    resolve = downloads.hub.listing

    def move_after(repository: str, revision: str) -> object:
        listing = resolve(repository, revision)
        changed = {"config.json": b"{}", "model.safetensors": weights(seed=8)}
        downloads.hub.publish(model_files(**changed))
        return listing

    monkeypatch.setattr(downloads.hub, "listing", move_after)

    obtained = downloads.get()

    assert obtained.commit == old
    assert (obtained.folder / "model.safetensors").read_bytes() == weights()
    assert (obtained.folder / "config.json").read_bytes() == model_files()["config.json"]


def test_the_token_goes_to_the_hub_and_to_no_other_host(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())

    downloads.get(token="hf_secret")

    sent = {(asked.host, asked.headers.get("authorization")) for asked in downloads.hub.asked}
    assert sent == {("hub", "Bearer hf_secret"), ("cdn", None)}


def test_a_plain_folder_gets_plain_files(downloads: Downloads, tmp_path: Path) -> None:
    downloads.hub.publish(model_files())

    obtained = downloads.get(local_dir=tmp_path / "copy")
    again = downloads.get(local_dir=tmp_path / "copy")

    copied = {path.name for path in (tmp_path / "copy").iterdir() if path.is_file()}
    assert copied == NEEDED
    assert not any(path.is_symlink() for path in obtained.folder.iterdir())
    assert all(file.is_cached for file in again.files)
    assert not downloads.cache.exists()


def test_a_plain_folder_follows_a_file_that_keeps_its_size(
    downloads: Downloads, tmp_path: Path
) -> None:
    downloads.hub.publish(model_files(**{"config.json": b'{"a": 1}'}))
    downloads.get(local_dir=tmp_path / "copy", check="size")
    downloads.hub.publish(model_files(**{"config.json": b'{"a": 2}'}))

    obtained = downloads.get(local_dir=tmp_path / "copy", check="size")

    assert (obtained.folder / "config.json").read_bytes() == b'{"a": 2}'


def test_a_dry_run_tells_and_writes_nothing(downloads: Downloads) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": weights(name=f"w{n}") for n in (1, 2)}
    index = json.dumps({"weight_map": {f"w{n}": name for n, name in enumerate(shards, 1)}})
    downloads.hub.publish(model_files(**shards, **{INDEX: index.encode()}))

    obtained = downloads.get(is_dry_run=True)

    names = {file.name for file in obtained.files}
    assert names == {"config.json", "tokenizer.json", INDEX, *shards}
    assert obtained.num_missing_bytes == obtained.num_bytes > 0
    assert not downloads.cache.exists()


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads.hub.publish(model_files())
    monkeypatch.setattr(
        disk.os, "statvfs", lambda _: os.statvfs_result((1, 1, 0, 0, 12_000, 0, 0, 0, 0, 0))
    )

    with pytest.raises(DiskSpaceError, match=r"10\.\d kB more are needed.* 12\.0 kB free"):
        downloads.get(min_free_bytes=5000)

    assert not downloads.hub.asked_for("model.safetensors")
    assert downloads.get(min_free_bytes=5000, ignores_disk_space=True).num_missing_bytes > 0


def test_what_has_arrived_counts_for_the_disk(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail("model.safetensors", Fault(cut_at=9_000), *[Fault(status=503)] * 6)
    with pytest.raises(ModelNotFoundError):
        downloads.get()
    monkeypatch.setattr(
        disk.os, "statvfs", lambda _: os.statvfs_result((1, 1, 0, 0, 2_000, 0, 0, 0, 0, 0))
    )

    assert downloads.get().num_missing_bytes > 2_000


def test_a_disk_that_fills_up_keeps_what_has_arrived(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads.hub.publish(model_files())
    room = 3_000

    class FullDisk(partial_file.PartialFile):
        def _put(self, data: memoryview) -> int:
            if self.num_bytes >= room:
                raise OSError(28, "No space left on device")
            return super()._put(data[: room - self.num_bytes])

    with monkeypatch.context() as patch:
        patch.setattr("tgi_cli.runtime.hub.download.fetch.PartialFile", FullDisk)
        with pytest.raises(DiskSpaceError, match=r"model\.safetensors: the disk is full"):
            downloads.get()
    arrived = downloads.partials()[0].stat().st_size

    downloads.get()

    assert arrived == room
    assert downloads.hub.asked_for("model.safetensors")[-1].first_byte == arrived


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": -1}, "no usable name, size and hash"),
        ({"size": None}, "no usable name, size and hash"),
        ({"blobId": "../../etc/passwd"}, "no usable name, size and hash"),
        ({"rfilename": "../outside"}, "no usable name, size and hash"),
        ({"rfilename": "/etc/outside"}, "no usable name, size and hash"),
        ({"rfilename": "a" * 256}, "no usable name, size and hash"),
        ({"rfilename": 5}, "no usable name, size and hash"),
        ({"rfilename": None}, "no usable name, size and hash"),
        ({"rfilename": {"x": 1}}, "no usable name, size and hash"),
        ({"rfilename": "tokenizer.json"}, "lists 'tokenizer.json' twice"),
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(
    change: dict[str, object], reason: str, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.listed["config.json"] = change

    with pytest.raises(VerificationError, match=reason):
        downloads.get()

    assert not downloads.cache.exists()


@pytest.mark.parametrize(
    "body",
    [
        *(b"<html>", b"[]", b'"x"', b'{"siblings": 3}', b"{}"),
        b'{"id": "x", "sha": 5, "siblings": []}',
        pytest.param(b"[" * 200_000, id="deep"),
    ],
)
def test_a_server_that_isnt_a_hub_is_told(body: bytes, downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail("info", Fault(body=body))

    with pytest.raises(StartError, match=MODEL) as failure:
        downloads.get()

    assert "HF_ENDPOINT" in str(failure.value.hint)


def test_a_repository_found_in_an_older_layout_is_not_fetched_again(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.get(cache_dir=downloads.cache / "hub")

    obtained = downloads.get()

    assert all(file.is_cached for file in obtained.files)


def test_a_file_too_large_for_plain_http_goes_through_the_hubs_client(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads.hub.publish(model_files())
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1_000)
    fetched = []

    def whole_client(repository: str, name: str, **options: object) -> None:
        fetched.append((repository, name, options["cache_dir"]))
        monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1 << 40)
        hf_hub_download(repository, name, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("tgi_cli.runtime.hub.download.fetch.hf_hub_download", whole_client)

    obtained = downloads.get(num_workers=1)

    assert fetched == [(MODEL, "model.safetensors", downloads.cache)]
    assert (obtained.folder / "model.safetensors").read_bytes() == weights()
