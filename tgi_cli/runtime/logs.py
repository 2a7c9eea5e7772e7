"""Log lines, one event each, for people or (`--json-output`) for machines.

The main process and each engine call `configure_logging` once, at their start. Lines go to stderr:
stdout is for what a person asked to see. The JSON fields are TGI's (spec/metrics.md section 5).
No module logs a prompt or an output above DEBUG.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

from tgi_cli.runtime.config.resolved import LogConfig

_ROOT = "tgi_cli"
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_COLOURS = {"DEBUG": "34", "INFO": "32", "WARN": "33", "ERROR": "31"}


def configure_logging(config: LogConfig, *, rank: int | None = None) -> None:
    """Send this process's log to stderr; `rank` names the engine that it is, if it is one.

    The level applies to our own modules; libraries speak from WARN upwards.
    """
    handler = logging.StreamHandler(sys.stderr)
    if config.json:
        handler.setFormatter(JsonFormatter(rank))
    else:
        handler.setFormatter(TextFormatter(rank, colour=config.colour and sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_ROOT).setLevel(config.level.upper())
    logging.captureWarnings(capture=True)


class TextFormatter(logging.Formatter):
    """`time LEVEL span: module: file:line: message`, as TGI writes it."""

    def __init__(self, rank: int | None, *, colour: bool) -> None:
        super().__init__()
        self._span = "" if rank is None else f"shard-manager{{rank={rank}}}: "
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = _level(record)
        shown = f"\x1b[{_COLOURS[level]}m{level:>5}\x1b[0m" if self._colour else f"{level:>5}"
        fields = "".join(f" {name}={value}" for name, value in _extra(record).items())
        text = (
            f"{_timestamp(record)} {shown} {self._span}{record.name.replace('.', '::')}: "
            f"{record.filename}:{record.lineno}: {record.getMessage()}{fields}"
        )
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One object per line. Values passed as `extra` are fields beside the message."""

    def __init__(self, rank: int | None) -> None:
        super().__init__()
        self._span = None if rank is None else {"name": "shard-manager", "rank": rank}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": _timestamp(record),
            "level": _level(record),
            "message": record.getMessage(),
            "target": record.name.replace(".", "::"),
            "filename": record.filename,
            "line_number": record.lineno,
        }
        if self._span:
            line |= {"span": self._span, "spans": [self._span]}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line | _extra(record), enc_hook=str).decode()


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _level(record: logging.LogRecord) -> str:
    if record.levelno >= logging.ERROR:
        return "ERROR"
    return "WARN" if record.levelno >= logging.WARNING else record.levelname


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
