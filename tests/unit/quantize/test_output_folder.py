"""Where a result can be put, told before any work; and the disk's errors in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tgi_cli.errors import ArgumentError, DiskSpaceError, StartError
from tgi_cli.runtime.quantize.output_folder import check_output, disk_errors

NOWHERE = "no/model/here"


def refused(output: Path | str, text: str, model: Path | str = NOWHERE) -> None:
    with pytest.raises(ArgumentError, match=text):
        check_output(str(model), str(output))


def test_new_and_empty_folders_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    for asked in ("empty", "new", "deep/er/new", "~/new"):
        assert check_output(NOWHERE, asked) == tmp_path / asked.removeprefix("~/")

    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("asked", ["", "/", "some/.."])
def test_a_name_is_needed(asked: str) -> None:
    refused(asked, "doesn't name a folder")


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused(tmp_path / "file", "a new or an empty folder")
    refused(tmp_path, "a new or an empty folder")


@pytest.mark.parametrize("leads_to", ["empty", "nowhere"])
def test_a_link_is_refused(tmp_path: Path, leads_to: str) -> None:
    """Nothing can be moved to its name but a file."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / leads_to)

    refused(tmp_path / "out", "can't be a link")


def test_a_mount_point_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)

    refused(tmp_path, "can't be a mount point")


def test_a_place_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused(tmp_path / "file" / "out", "file is a file, not a folder")
    refused(tmp_path / ("n" * 250), "File name too long")


def test_a_folder_without_the_right_to_write_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root has all

    refused(tmp_path / "out", "no right to write")


def test_the_models_own_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "out", "the model's own folder", model=tmp_path)


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (errno.ENOSPC, DiskSpaceError, "out.partial can't grow"),
        (errno.EFBIG, DiskSpaceError, "File too large"),
        (errno.EIO, StartError, "00001.safetensors: Input/output error"),
    ],
)
@pytest.mark.parametrize("can_resume", [True, False])
def test_the_disks_errors_are_told_in_words(
    tmp_path: Path, number: int, error: type[StartError], text: str, can_resume: bool
) -> None:
    path = tmp_path / "out.partial" / "layers" / "00001.safetensors"

    with (
        pytest.raises(error, match=text) as caught,
        disk_errors(tmp_path / "out", can_resume=can_resume),
    ):
        raise OSError(number, os.strerror(number), str(path))

    assert ("--resume" in str(caught.value.hint)) == can_resume
