"""The state of a running stage, put together from the ticks of its workers."""

from __future__ import annotations

from collections import Counter, deque
from itertools import pairwise
from typing import NamedTuple

from tgi_cli.runtime.bench.live_counters import LiveCounters
from tgi_cli.runtime.bench.messages import Tick
from tgi_cli.runtime.bench.tally import percentile, seconds_of

_NS = 1_000_000_000
_RECENT_S = 5.0
_SERIES_LENGTH = 60
_POINT_S = 0.25


SERIES = ("out_tok_s", "in_tok_s", "req_s", "ttft", "itl", "e2e")


class _Second(NamedTuple):
    """Totals at the end of a second."""

    at_s: float
    num_tokens: int
    num_ok: int
    num_input_tokens: int
    sum_e2e: int


class LiveState:
    """Totals since the phase began, and the rates of its last five seconds."""

    def __init__(self, start: int) -> None:
        self._start = start
        self.elapsed_s = 0.0
        self.num_sent = 0
        self.num_in_flight = 0
        self.num_ok = 0
        self.num_tokens = 0
        self.num_failed_in_a_row = 0
        self.failures: dict[str, int] = {}
        self.first_message: str | None = None
        self.worker_cpu: list[float] = []
        self._ttft: Counter[int] = Counter()
        self._itl: Counter[int] = Counter()
        self._lag: Counter[int] = Counter()
        self.points: deque[tuple[float, int, int]] = deque()  # seconds, tokens, requests so far
        self._num_input_tokens = 0
        self._sum_e2e = 0
        self._fresh_ttft: Counter[int] = Counter()  # since the last whole second
        self._fresh_itl: Counter[int] = Counter()
        self._second = _Second(0.0, 0, 0, 0, 0)
        self.series: dict[str, list[float]] = {name: [] for name in SERIES}  # a value a second

    def add(self, tick: Tick) -> None:
        """Take in a tick's histograms, which hold only what is new."""
        self._fresh_ttft.update(tick.ttft)
        self._fresh_itl.update(tick.itl)
        self._ttft.update(tick.ttft)
        self._itl.update(tick.itl)
        self._lag.update(tick.lag)

    def look(self, now: int, ticks: list[Tick]) -> None:
        """Take in the newest totals of every worker."""
        self.elapsed_s = max(now - self._start, 0) / _NS
        self.num_sent = sum(tick.num_sent for tick in ticks)
        self.num_in_flight = sum(tick.num_in_flight for tick in ticks)
        self.num_ok = sum(tick.num_ok for tick in ticks)
        self.num_tokens = sum(tick.num_tokens for tick in ticks)
        self.num_failed_in_a_row = sum(tick.num_failed_in_a_row for tick in ticks)
        failures: Counter[str] = Counter()
        for tick in ticks:
            failures.update(tick.failures)
            self.first_message = self.first_message or tick.message
        self.failures = dict(failures)
        self.worker_cpu = [tick.cpu_share for tick in ticks]
        if not self.points or self.elapsed_s - self.points[-1][0] >= _POINT_S * 0.9:
            self.points.append((self.elapsed_s, self.num_tokens, self.num_ok))

        self._num_input_tokens = sum(tick.num_input_tokens for tick in ticks)
        self._sum_e2e = sum(tick.sum_e2e for tick in ticks)
        if self.elapsed_s - self._second.at_s >= 1.0:
            self._end_second()

    def _end_second(self) -> None:
        before = self._second
        now = self._second = _Second(
            self.elapsed_s, self.num_tokens, self.num_ok, self._num_input_tokens, self._sum_e2e
        )
        span_s, num_ok = now.at_s - before.at_s, now.num_ok - before.num_ok
        self.series["out_tok_s"].append((now.num_tokens - before.num_tokens) / span_s)
        self.series["in_tok_s"].append((now.num_input_tokens - before.num_input_tokens) / span_s)
        self.series["req_s"].append(num_ok / span_s)
        if num_ok:
            self.series["e2e"].append((now.sum_e2e - before.sum_e2e) / num_ok / _NS)
        for name, fresh in (("ttft", self._fresh_ttft), ("itl", self._fresh_itl)):
            if fresh:
                whole = sum(seconds_of(bucket) * count for bucket, count in fresh.items())
                self.series[name].append(whole / fresh.total())
                fresh.clear()

    def counters(
        self,
        key: str,
        index: int,
        num_stages: int | None,
        phase: str,
        left_s: float | None,
        num_planned: int | None,
    ) -> LiveCounters:
        """Return what a person is shown."""
        recent = [each for each in self.points if each[0] >= self.elapsed_s - _RECENT_S]
        tok_s = req_s = 0.0
        if len(recent) > 1 and recent[-1][0] > recent[0][0]:
            span = recent[-1][0] - recent[0][0]
            tok_s = (recent[-1][1] - recent[0][1]) / span
            req_s = (recent[-1][2] - recent[0][2]) / span
        newest = list(self.points)[-_SERIES_LENGTH - 1 :]
        series = [
            (now[1] - before[1]) / max(now[0] - before[0], 1e-6) for before, now in pairwise(newest)
        ]
        return LiveCounters(
            stage_key=key,
            stage_index=index,
            num_stages=num_stages,
            phase=phase,
            time_left_s=left_s,
            elapsed_s=self.elapsed_s,
            num_planned=num_planned,
            num_sent=self.num_sent,
            num_in_flight=self.num_in_flight,
            num_ok=self.num_ok,
            failures=self.failures,
            req_s=req_s,
            tok_s=tok_s,
            tok_s_series=series,
            ttft_p50_s=percentile(self._ttft, 0.5),
            ttft_p99_s=percentile(self._ttft, 0.99),
            itl_p50_s=percentile(self._itl, 0.5),
            itl_p99_s=percentile(self._itl, 0.99),
            lag_p99_s=percentile(self._lag, 0.99),
            worker_cpu=self.worker_cpu,
        )
