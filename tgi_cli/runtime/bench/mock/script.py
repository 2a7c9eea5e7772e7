"""What a stream writes, in order, and which token's moment each write waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tgi_cli.runtime.bench.mock.dialects import (
    GARBAGE_EVENT,
    Answer,
    OpenAiForm,
    TgiForm,
    error_event,
)
from tgi_cli.runtime.config.mock import FaultKind, MockOptions

_HALVING: frozenset[FaultKind] = frozenset({"error-event", "truncated", "cut", "reset", "garbage"})


@dataclass(frozen=True, slots=True)
class Write:
    pieces: tuple[bytes, ...]  # one write each; the last completes the events
    waits_for: int | None = None  # position of a token; None: written at once
    num_tokens: int = 0
    num_events: int = 0  # with tokens


def script(
    form: TgiForm | OpenAiForm, answer: Answer, options: MockOptions, fault: FaultKind | None
) -> Iterator[Write]:
    """Yield the writes of a stream. A faulty one ends after half of its tokens, at least one."""
    if opening := form.opening(answer):
        yield Write((b"".join(opening),))
    is_cut = fault in _HALVING
    num_shown = (answer.num_tokens + 1) // 2 if is_cut else answer.num_tokens
    yield from _token_writes(form, answer, options, num_shown, has_end=not is_cut)
    if fault == "error-event":
        yield Write((error_event(form),))
    elif fault == "garbage":
        yield Write((GARBAGE_EVENT,))
    elif not is_cut and (closing := form.closing(answer)):
        yield Write((b"".join(closing),))


def _token_writes(
    form: TgiForm | OpenAiForm,
    answer: Answer,
    options: MockOptions,
    num_shown: int,
    *,
    has_end: bool,
) -> Iterator[Write]:
    """Yield the writes of the first `num_shown` tokens: packed, or split."""
    step = options.tokens_per_event * options.events_per_write
    for first in range(0, num_shown, step):
        stop = min(first + step, num_shown)
        events: list[bytes] = []
        for start in range(first, stop, options.tokens_per_event):
            end = min(start + options.tokens_per_event, stop)
            events += form.events(answer, start, end, has_end=has_end)
        yield Write(
            _split(b"".join(events), options.writes_per_event),
            waits_for=stop - 1,
            num_tokens=stop - first,
            num_events=len(events),
        )


def _split(data: bytes, num_pieces: int) -> tuple[bytes, ...]:
    """Cut `data` into pieces of about equal size, none of them empty."""
    if num_pieces == 1:
        return (data,)
    size = -(-len(data) // num_pieces)
    return tuple(data[at : at + size] for at in range(0, len(data), size))
