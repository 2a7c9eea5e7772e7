"""What a probe prints: one line, one line of JSON, or a few lines for a person."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from tgi_cli.runtime.config.probe import ProbeOptions, UsageError
from tgi_cli.runtime.health.probe import Outcome
from tgi_cli.runtime.health.wire import WireError, get

_MAX_LINE = 200  # Docker keeps 4096 bytes of several probes
_LIMITS = ("max_concurrent_requests", "max_input_tokens", "max_total_tokens")
_GAUGES = (
    ("queue", "tgi_queue_size", "requests waiting"),
    ("batch", "tgi_batch_current_size", "requests running"),
)
_KV_USED, _KV_TOTAL = "tgi_kv_cache_blocks_used", "tgi_kv_cache_blocks_total"


def show_usage(error: UsageError) -> None:
    print(f"tgi health: {error}; see tgi health --help", file=sys.stderr)


def show(outcome: Outcome, options: ProbeOptions) -> None:
    """Print the outcome as the options say."""
    if options.is_quiet:
        return
    if options.is_json:
        line = {
            "status": outcome.status,
            "healthy": outcome.is_well,
            "level": options.level,
            "message": outcome.message,
            "url": str(options.target),
            "server": outcome.facts,
        }
        print(json.dumps(line, separators=(",", ":")))
        return
    print(_one_line(f"{outcome.status}: {outcome.message} ({options.level} {options.target})"))
    if options.is_human or sys.stdout.isatty():
        for row in _details(options):
            print(row)


def _one_line(text: str) -> str:
    """Return `text` without what could break or colour the line, and no longer than allowed."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return printable if len(printable) <= _MAX_LINE else printable[: _MAX_LINE - 1] + "…"


def _details(options: ProbeOptions) -> list[str]:
    """Return the rows of a server that can be asked for them; none of one that can't."""
    deadline_s = time.monotonic() + options.timeout_s
    try:
        info = get(options.target, "/info", deadline_s).json()
        gauges = read_gauges(get(options.target, "/metrics", deadline_s).body.decode())
    except (WireError, UnicodeDecodeError):
        return []
    return [_one_line(f"  {name:<8}{value}") for name, value in _rows(info, gauges)]


def _rows(info: Any, gauges: dict[str, float]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if isinstance(info, dict):
        rows.append(("model", str(info.get("model_id"))))
        limits = [f"{name} {info[name]}" for name in _LIMITS if name in info]
        rows.append(("limits", ", ".join(limits)))
    rows += [(name, f"{gauges[s]:.0f} {unit}") for name, s, unit in _GAUGES if s in gauges]
    if gauges.get(_KV_TOTAL):
        used, total = gauges.get(_KV_USED, 0.0), gauges[_KV_TOTAL]
        rows.append(("kv", f"{used:.0f} of {total:.0f} blocks, {used / total:.1%}"))
    return rows


def read_gauges(exposition: str) -> dict[str, float]:
    """Return the values of a Prometheus text's series that have no labels."""
    values: dict[str, float] = {}
    for line in exposition.splitlines():
        name, _, value = line.partition(" ")
        if not line.startswith("#") and "{" not in name:
            try:
                values[name] = float(value)
            except ValueError:
                continue
    return values
