"""`requests.jsonl`: every request of a run, one a line, so that each number can be counted again.

Moments are ns from the run's start. `deliveries` are microseconds, each since the one before and
the first since `sched`; what lies below a microsecond stands behind the point, so that nothing is
lost. What has its usual value is left out. Spec: bench.md section 13.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import msgspec

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.records import RequestRecord, StageRecord

_NAME_FIELDS = ("stage", "repeat")
_BY_DELIVERY = ("deliveries", "tokens")
_DEFAULTS = {
    field.name: field.default
    for field in msgspec.structs.fields(RequestRecord)
    if field.default is not msgspec.NODEFAULT
}
_encode = msgspec.json.Encoder().encode


def append_requests(path: Path, record: StageRecord) -> None:
    """Add the requests of a stage. If that fails, the file is as it was before.

    Raises:
        OSError: the file can't be written.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as out:
            for request in record.requests:
                out.write(_line(request, record.key, record.repeat))
    except OSError:
        if path.exists():
            os.truncate(path, size)
        raise


def read_requests(path: Path) -> Iterator[tuple[str, int, RequestRecord]]:
    """Yield stage, repeat and record of each line; a last line that was cut off is left out.

    Raises:
        UsageError: no such file, or a line that is none of ours.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.endswith(b"\n"):
                    yield _request(line, f"{path}, line {number}")
    except OSError as exc:
        raise UsageError(f"{path} can't be read: {exc.strerror}") from exc


def requests_by_stage(path: Path) -> dict[tuple[str, int], list[RequestRecord]]:
    """Return the requests of each stage and repeat. Raises as `read_requests` does."""
    found: dict[tuple[str, int], list[RequestRecord]] = {}
    for stage, repeat, request in read_requests(path):
        found.setdefault((stage, repeat), []).append(request)
    return found


def _line(request: RequestRecord, stage: str, repeat: int) -> bytes:
    fields: dict[str, Any] = {"stage": stage, "repeat": repeat}
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if value != _DEFAULTS.get(name, msgspec.NODEFAULT) and name not in _BY_DELIVERY:
            fields[name] = value
    if request.tokens:
        fields["tokens"] = list(request.tokens)
    if request.deliveries:
        moments = (request.sched, *request.deliveries)
        fields["deliveries"] = [_microseconds(now - before) for before, now in pairwise(moments)]
    return _encode(fields) + b"\n"


def _request(line: bytes, where: str) -> tuple[str, int, RequestRecord]:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
        stage, repeat = (fields.pop(name) for name in _NAME_FIELDS)
        if deltas := fields.get("deliveries"):
            gaps = (round(delta * 1000) for delta in deltas)
            fields["deliveries"] = list(accumulate(gaps, initial=fields["sched"]))[1:]
        return str(stage), int(repeat), msgspec.convert(fields, RequestRecord)
    except (ValueError, TypeError, KeyError, msgspec.MsgspecError) as exc:
        raise UsageError(f"{where} is no request of tgi bench") from exc


def _microseconds(ns: int) -> int | float:
    return ns // 1000 if ns % 1000 == 0 else ns / 1000
