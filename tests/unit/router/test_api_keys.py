"""Which `Authorization` opens the door, and how a file of keys is followed."""

from __future__ import annotations

import logging
import os

import pytest

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.router.api_keys import ApiKeys


def write(path, text):
    """Write `text` so that the file's version changes however coarse its clock is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    path.chmod(0o600)
    os.utime(path, ns=(before + 10**9, before + 10**9))
    return path


@pytest.mark.parametrize(
    ("authorization", "is_allowed"),
    [
        ("Bearer first", True),
        ("bearer second", True),
        ("BEARER own", True),
        ("Bearer First", False),
        ("Bearer # a comment", False),
        ("Bearer ", False),
        ("Bearer", False),
        ("Basic first", False),
        ("first", False),
        ("", False),
        ("Bearer \udcff", False),
    ],
)
def test_each_key_opens_with_any_case_of_the_scheme_only(tmp_path, authorization, is_allowed):
    file = write(tmp_path / "keys", "# a comment\nfirst\n\n  second  \r\n")

    keys = ApiKeys("own", str(file))

    assert keys.allow(authorization) is is_allowed


async def test_a_changed_file_is_read_again(tmp_path):
    file = write(tmp_path / "keys", "old")
    keys = ApiKeys(None, str(file))

    write(file, "new")
    await keys.refresh()

    assert (keys.allow("Bearer old"), keys.allow("Bearer new")) == (False, True)


@pytest.mark.parametrize("spoil", ["empty", "comments", "removed", "folder", "huge"])
async def test_a_spoilt_file_keeps_the_keys_and_is_reported_once(tmp_path, spoil, caplog):
    file = write(tmp_path / "keys", "good")
    keys = ApiKeys(None, str(file))
    if spoil in ("removed", "folder"):
        file.unlink()
    if spoil == "folder":
        file.mkdir()
    texts = {"empty": "", "comments": "# one\n", "huge": "x" * (1 << 21)}
    if spoil in texts:
        write(file, texts[spoil])

    await keys.refresh()
    await keys.refresh()

    assert keys.allow("Bearer good")
    assert keys.is_required
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_mended_file_is_taken_up_again(tmp_path):
    file = write(tmp_path / "keys", "good")
    keys = ApiKeys(None, str(file))
    write(file, "")
    await keys.refresh()

    write(file, "better")
    await keys.refresh()

    assert keys.allow("Bearer better")


@pytest.mark.parametrize("text", [None, "", "# only a comment\n"])
def test_a_server_does_not_start_with_a_file_that_holds_no_key(tmp_path, text):
    file = tmp_path / "keys"
    if text is not None:
        write(file, text)

    with pytest.raises(ArgumentError, match="the file of API keys can't be used"):
        ApiKeys("own", str(file))


def test_a_file_that_everybody_can_read_is_warned_of(tmp_path, caplog):
    file = write(tmp_path / "keys", "secret-1")
    file.chmod(0o644)

    ApiKeys(None, str(file))

    assert "can be read by every user" in caplog.text
    assert "secret-1" not in caplog.text


def test_no_key_is_needed_where_there_is_none():
    assert not ApiKeys(None, None).is_required
