"""How `tgi bench mock`'s own little languages are read."""

from __future__ import annotations

import pytest

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.mock import (
    Fault,
    Freeze,
    MockOptions,
    parse_dialects,
    parse_fault,
    parse_freeze,
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("10%:429", Fault(0.1, "status", status=429)),
        ("1:503", Fault(1.0, "status", status=503)),
        ("5%:reset", Fault(0.05, "reset")),
        ("5%:error-event", Fault(0.05, "error-event")),
        ("2.5%:stall:300ms", Fault(0.025, "stall", pause_s=0.3)),
    ],
)
def test_a_fault_has_a_share_and_a_kind(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text", ["", "429", "10%", "10%:200", "10%:fire", "200%:429", "5%:stall", "5%:reset:1s"]
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_fault(text)


def test_a_freeze_begins_at_a_time_or_at_a_request() -> None:
    assert parse_freeze("5s@10s") == Freeze(5.0, after_s=10.0)
    assert parse_freeze("500ms@200") == Freeze(0.5, at_request=200)
    with pytest.raises(ValueError, match="LENGTH@MOMENT"):
        parse_freeze("5s")


def test_protocols_are_a_list() -> None:
    assert parse_dialects("chat, tgi") == ("tgi", "chat")
    with pytest.raises(ValueError, match="not a list"):
        parse_dialects("grpc")


@pytest.mark.parametrize(
    "options",
    [
        {"faults": (Fault(0.6, "reset"), Fault(0.6, "cut"))},
        {"events_per_write": 2, "writes_per_event": 2},
        {"max_queue": 3},
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        MockOptions(**options)  # type: ignore[arg-type]
