"""What is read from a Dockerfile."""

from __future__ import annotations

import pytest

from tools.dockerfile import (
    Instruction,
    Mount,
    argument,
    assignments,
    chain,
    command,
    expand,
    fact,
    mount,
    options,
    parse,
)

TEXT = """\
# a comment
ARG BASE=debian:12

FROM ${BASE} AS first
RUN one \\
    # between
    && two
ENV A=1

FROM first AS second
ENTRYPOINT ["a", "b c"]
FROM first
"""


def test_stages_are_read_with_their_lines_joined() -> None:
    first, second, last = parse(TEXT, {})

    assert (first.name, first.parent) == ("first", "debian:12")
    assert first.instructions == (Instruction("RUN", "one && two", 5), Instruction("ENV", "A=1", 8))
    assert (second.name, last.name, last.parent) == ("second", "", "first")


def test_an_argument_that_is_given_names_the_image() -> None:
    assert parse(TEXT, {"BASE": "other"})[0].parent == "other"


def test_a_chain_begins_with_the_image_and_its_last_fact_counts() -> None:
    stages = parse(TEXT, {})

    assert [stage.name for stage in chain(stages, "second")] == ["first", "second"]
    assert [stage.name for stage in chain(stages, "")] == ["first", ""]
    assert command(fact(chain(stages, "second"), "ENTRYPOINT") or "") == ["a", "b c"]
    assert fact(chain(stages, ""), "ENTRYPOINT") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM a\nSHELL x\n", "line 2: SHELL isn't known here"),
        ("RUN a\n", "line 1: RUN before FROM"),
        ("FROM a\n\nRUN a \\\n", "line 3: the file ends within this instruction"),
    ],
)
def test_what_is_not_known_is_named(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A/b", "1/b"),
        ("${A}b", "1b"),
        ("${B:-2}", "2"),
        ("${A:-2}", "1"),
        ("$B.", "."),
        ("a", "a"),
    ],
)
def test_variables_are_put_in_place(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "EMPTY": ""}) == expected


def test_an_argument_has_what_was_given_else_its_default_else_nothing() -> None:
    assert argument("A=1", {"A": "2"}, {}) == {"A": "2"}
    assert argument("A=$B", {}, {"B": "3"}) == {"A": "3"}
    assert argument("A", {}, {}) == {}


def test_an_environment_is_read_word_by_word() -> None:
    assert assignments("A=1 B='x y' C=$D:e", {"D": "d"}) == {"A": "1", "B": "x y", "C": "d:e"}


def test_a_mounted_folder_is_read_off_a_step() -> None:
    given, rest = options("--mount=type=bind,from=a,source=/b,target=/c pip --x")

    assert mount(given["mount"]) == Mount("a", "/b", "/c")
    assert rest == "pip --x"


def test_another_kind_of_mount_is_refused() -> None:
    with pytest.raises(ValueError, match="only type=bind"):
        mount("type=cache,target=/c")
