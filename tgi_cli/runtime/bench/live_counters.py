"""What a person sees of a running stage: small numbers, four times a second.

The workers keep them as they go; they are for the eye and for the stop rules, never for results.
Spec: bench.md section 12.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class LiveCounters(msgspec.Struct, kw_only=True):
    """The state of the run now. Times in seconds."""

    stage_key: str
    stage_index: int  # from 0
    num_stages: int | None  # None: a sweep, which ends when it has found what it looks for
    phase: str  # warm-up, measure or drain
    time_left_s: float | None  # of the phase; None: until a number of requests is done
    elapsed_s: float
    num_planned: int | None
    num_sent: int = 0
    num_in_flight: int = 0
    num_ok: int = 0
    failures: dict[str, int] = {}  # by class
    req_s: float = 0.0  # over the last 5 s
    tok_s: float = 0.0
    tok_s_series: list[float] = []  # one value a quarter of a second, the newest last
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    itl_p50_s: float | None = None
    itl_p99_s: float | None = None
    lag_p99_s: float | None = None
    worker_cpu: list[float] = []  # share of a core, by worker


class LiveView(Protocol):
    """Draws the counters; `note` is a line that stays."""

    def show(self, counters: LiveCounters) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...
