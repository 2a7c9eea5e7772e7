"""What `tgi bench mock` was asked to be, and how its options are read. Times in seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.parsers import count, duration, names, percentage
from tgi_cli.runtime.config.spreads import Spread, constant

Dialect = Literal["tgi", "completions", "chat"]
DIALECTS: tuple[Dialect, ...] = ("tgi", "completions", "chat")

Usage = Literal["final", "continuous", "none"]
USAGES: tuple[Usage, ...] = ("final", "continuous", "none")

DEFAULT_TTFT = constant(0.1)
DEFAULT_ITL = constant(0.02)

FaultKind = Literal[
    "status",  # refused at once, with an HTTP status
    "error-event",  # status 200, half of the answer, then an event that says an error
    "truncated",  # half of the answer, then a clean end of the body without an end mark
    "cut",  # half of the answer, then the connection is closed in the middle of the body
    "reset",  # half of the answer, then the connection is reset
    "empty",  # an end mark, and no token before it
    "garbage",  # an event that is no JSON
    "stall",  # half of the answer, a pause, the other half
    "hang",  # never a byte
]
_FAULT_WORDS = "error-event, truncated, cut, reset, empty, garbage, hang, stall:DURATION"
_STATUS = re.compile(r"[45]\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fault:
    """A share of the requests that goes wrong, and how."""

    share: float
    kind: FaultKind
    status: int = 0
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Freeze:
    """One pause of the whole server."""

    length_s: float
    after_s: float | None = None  # from the first request
    at_request: int | None = None  # which counts from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MockOptions:
    hostname: str = "127.0.0.1"
    port: int = 0
    dialects: tuple[Dialect, ...] = DIALECTS
    model_id: str = "mock"
    ttft_s: Spread = DEFAULT_TTFT
    itl_s: Spread = DEFAULT_ITL
    tokens: Spread | None = None  # where an answer would end by itself; None: at its limit
    tokens_per_event: int = 1
    events_per_write: int = 1
    writes_per_event: int = 1
    split_gap_s: float = 0.001  # between the writes of one event
    has_role_event: bool = True  # of chats
    num_reasoning_tokens: int = 0  # of chats
    usage: Usage = "final"
    usage_offset: int = 0  # a lie: added to the number of output tokens
    sends_token_ids: bool = False
    refused_fields: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    num_spared: int = 0  # requests at the beginning that no fault hits
    retry_after_s: float | None = None
    freeze: Freeze | None = None
    num_slots: int | None = None
    max_queue: int | None = None
    tokenizer_file: Path | None = None
    num_template_tokens: int = 0
    caches_prefixes: bool = False
    seed: int = 0
    is_null: bool = False
    log_file: Path | None = None

    def __post_init__(self) -> None:
        if sum(fault.share for fault in self.faults) > 1 + 1e-9:
            raise ArgumentError("The shares of --fault add up to more than 100 %.")
        if self.events_per_write > 1 and self.writes_per_event > 1:
            raise ArgumentError(
                "--events-per-write packs what --writes-per-event splits: give one of them."
            )
        if self.max_queue is not None and self.num_slots is None:
            raise ArgumentError("--max-queue needs --slots: without slots nothing waits.")


def parse_fault(text: str) -> Fault:
    """Read `10%:429`, `5%:reset` or `5%:stall:5s`."""
    amount, colon, what = text.partition(":")
    if not colon:
        raise ValueError(_not_a_fault(text))
    share = percentage(amount)
    if _STATUS.fullmatch(what):
        return Fault(share, "status", status=int(what))
    kind, colon, pause = what.partition(":")
    if kind == "stall" and colon:
        return Fault(share, "stall", pause_s=duration(pause))
    for known in ("error-event", "truncated", "cut", "reset", "empty", "garbage", "hang"):
        if what == known:
            return Fault(share, known)
    raise ValueError(_not_a_fault(text))


def _not_a_fault(text: str) -> str:
    return f"{text!r} is not SHARE:KIND, such as 10%:429, with a status 400 to 599, {_FAULT_WORDS}"


def parse_freeze(text: str) -> Freeze:
    """Read `5s@10s` (after the first request) or `5s@200` (at request 200, from 0)."""
    length, at, moment = text.partition("@")
    if not at:
        raise ValueError(f"{text!r} is not LENGTH@MOMENT, such as 5s@10s or 5s@200")
    if moment.isdecimal():
        return Freeze(duration(length), at_request=count(moment))
    return Freeze(duration(length), after_s=duration(moment))


def parse_dialects(text: str) -> tuple[Dialect, ...]:
    """Read a comma list of protocols."""
    asked = names(text)
    unknown = [name for name in asked if name not in DIALECTS]
    if unknown or not asked:
        raise ValueError(f"{text!r} is not a list of {', '.join(DIALECTS)}")
    return tuple(dialect for dialect in DIALECTS if dialect in asked)
