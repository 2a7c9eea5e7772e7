"""Log lines, one event each, for people or (`--json-output`) for machines.

The main process and each engine call `configure_logging` once, at their start. Lines go to stderr:
stdout is for what a person asked to see. The JSON fields are TGI's (spec/metrics.md section 5).
A line says in which spans it happened: `with log_span(...)` around the work, or `in_spans(...)` for
work that ends elsewhere than it began. No module logs a prompt or an output above DEBUG.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from tgi_cli.runtime.config.resolved import LogConfig

_ROOT = "tgi_cli"
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "spans"}
_COLOURS = {"DEBUG": "34", "INFO": "32", "WARN": "33", "ERROR": "31"}
_OFF = logging.CRITICAL + 1
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": _OFF,
}
# What filters written for TGI call the parts of the server.
_TGI_TARGETS = {
    "text_generation_router": f"{_ROOT}.runtime.router",
    "text_generation_launcher": f"{_ROOT}.runtime.serving",
    "text_generation_server": f"{_ROOT}.runtime.engine",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work and what is known of it. Texts of users don't belong here."""

    name: str
    fields: dict[str, object] = field(default_factory=dict)

    def text(self) -> str:
        if not self.fields:
            return self.name
        shown = " ".join(
            f"{name}={_quoted(value) if isinstance(value, str) else value}"
            for name, value in self.fields.items()
        )
        return f"{self.name}{{{shown}}}"

    def json(self) -> dict[str, object]:
        return {**self.fields, "name": self.name}


_spans: ContextVar[tuple[Span, ...]] = ContextVar("log_spans", default=())


def current_spans() -> tuple[Span, ...]:
    """Return the spans that this is in, outermost first."""
    return _spans.get()


@contextmanager
def log_span(*spans: Span) -> Iterator[None]:
    """Put `spans`, each within the one before, around the lines of the block."""
    token = _spans.set((*_spans.get(), *spans))
    try:
        yield
    finally:
        _spans.reset(token)


def in_spans(*spans: Span) -> dict[str, object]:
    """Return the `extra` that puts one line into `spans`, wherever it is written from."""
    return {"spans": spans}


def configure_logging(config: LogConfig, *, rank: int | None = None) -> None:
    """Send this process's log to stderr; `rank` names the engine that it is, if it is one.

    The level without a target applies to our own modules; libraries speak from WARN upwards,
    unless the filter names them.
    """
    handler = logging.StreamHandler(sys.stderr)
    if config.json:
        handler.setFormatter(JsonFormatter(rank))
    else:
        handler.setFormatter(TextFormatter(rank, colour=config.colour and sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level, targets = parse_filter(config.level)
    logging.getLogger(_ROOT).setLevel(level)
    for target, target_level in targets.items():
        logging.getLogger(target).setLevel(target_level)
    logging.captureWarnings(capture=True)


def parse_filter(expression: str) -> tuple[int, dict[str, int]]:
    """Return the level of `info,text_generation_router=debug,asyncio=error`, and those by logger.

    A part that can't be read is passed over, as TGI does: a log filter never stops a start.
    """
    level, targets = logging.INFO, {}
    for part in expression.split(","):
        target, is_targeted, name = part.strip().rpartition("=")
        if (number := _LEVELS.get(name.strip().lower())) is None:
            continue
        if is_targeted:
            targets[_logger_name(target.strip())] = number
        else:
            level = number
    return level, targets


def _logger_name(target: str) -> str:
    head, _, rest = target.partition("::")
    name = _TGI_TARGETS.get(head, head)
    return f"{name}.{rest.replace('::', '.')}" if rest else name


class TextFormatter(logging.Formatter):
    """`time LEVEL spans: module: file:line: message`, as TGI writes it."""

    def __init__(self, rank: int | None, *, colour: bool) -> None:
        super().__init__()
        self._outer = _engine_span(rank)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = _level(record)
        shown = f"\x1b[{_COLOURS[level]}m{level:>5}\x1b[0m" if self._colour else f"{level:>5}"
        spans = "".join(f"{span.text()}:" for span in (*self._outer, *_spans_of(record)))
        fields = "".join(f" {name}={value}" for name, value in _extra(record).items())
        text = (
            f"{_timestamp(record)} {shown} {spans}{' ' if spans else ''}"
            f"{record.name.replace('.', '::')}: {record.filename}:{record.lineno}: "
            f"{_on_one_line(record.getMessage() + fields)}"
        )
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One object per line. Values passed as `extra` are fields beside the message."""

    def __init__(self, rank: int | None) -> None:
        super().__init__()
        self._outer = _engine_span(rank)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": _timestamp(record),
            "level": _level(record),
            "message": record.getMessage(),
            "target": record.name.replace(".", "::"),
            "filename": record.filename,
            "line_number": record.lineno,
        }
        if spans := (*self._outer, *_spans_of(record)):
            line |= {"span": spans[-1].json(), "spans": [span.json() for span in spans]}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line |= _extra(record)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # half a surrogate pair: the slower encoder escapes it
            return json.dumps(line, default=str)


def duration_text(duration_ns: int) -> str:
    """Write a duration as TGI does: `1.234567s`, `12.3ms`, `450µs`, `17ns`."""
    for unit, unit_ns in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if duration_ns >= unit_ns:
            whole, rest = divmod(duration_ns, unit_ns)
            decimals = str(unit_ns + rest)[1:].rstrip("0")
            return f"{whole}.{decimals}{unit}" if decimals else f"{whole}{unit}"
    return f"{duration_ns}ns"


def _engine_span(rank: int | None) -> tuple[Span, ...]:
    return () if rank is None else (Span("shard-manager", {"rank": rank}),)


def _spans_of(record: logging.LogRecord) -> tuple[Span, ...]:
    spans: tuple[Span, ...] = getattr(record, "spans", ()) or _spans.get()
    return spans


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _level(record: logging.LogRecord) -> str:
    if record.levelno >= logging.ERROR:
        return "ERROR"
    return "WARN" if record.levelno >= logging.WARNING else record.levelname


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _on_one_line(text: str) -> str:
    """Escape what would end the line or command a terminal: a log line can't be forged."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
