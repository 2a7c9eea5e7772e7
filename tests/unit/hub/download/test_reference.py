from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.errors import StartError, UsageError
from tgi_cli.runtime.hub.download.listing import is_plain_name
from tgi_cli.runtime.hub.download.reference import ModelReference, parse_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt2", ModelReference("gpt2")),
        ("org/name", ModelReference("org/name")),
        ("org/name@v1.0", ModelReference("org/name", "v1.0")),
        ("org/name@refs/pr/7", ModelReference("org/name", "refs/pr/7")),
        ("org/name:Q4_K_M", ModelReference("org/name", None, "Q4_K_M")),
        ("org/name@main:Q4_K_M", ModelReference("org/name", "main", "Q4_K_M")),
    ],
)
def test_a_models_name_is_read(text: str, expected: ModelReference) -> None:
    assert parse_reference(text) == expected


def test_a_revision_may_stand_beside_the_name_but_not_against_it() -> None:
    assert parse_reference("org/name", "v1").revision == "v1"
    assert parse_reference("org/name@v1", "v1").revision == "v1"
    with pytest.raises(UsageError, match="two revisions"):
        parse_reference("org/name@v1", "v2")


@pytest.mark.parametrize(
    "text", ["", "a/b/c", "../x", "a/..", "a b", "org/na..me", "é/x", "a--b/c"]
)
def test_what_cant_be_a_name_is_told(text: str) -> None:
    with pytest.raises(StartError, match="neither a path nor a hub id"):
        parse_reference(text)


@pytest.mark.parametrize("revision", ["../x", "a/../../b", "/etc", "-x\n", "a b", "\0"])
def test_a_revision_stays_inside_the_cache(revision: str) -> None:
    with pytest.raises(UsageError, match="not a branch, a tag or a commit"):
        parse_reference("org/name", revision)


@given(st.text(max_size=40), st.none() | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str, revision: str | None) -> None:
    try:
        found = parse_reference(text, revision)
    except StartError:
        return
    assert ".." not in f"{found.repository}{found.revision}"
    assert not f"{found.repository} {found.revision}".startswith("/")


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [
        ("a/b.json", True),
        (".gitattributes", True),
        ("../a", False),
        ("a/../b", False),
        ("/a", False),
        ("a//b", False),
        ("a\\b", False),
        ("a\nb", False),
        ("", False),
        (3, False),
    ],
)
def test_only_names_inside_the_folder_are_plain(name: object, is_plain: bool) -> None:
    assert is_plain_name(name) is is_plain
