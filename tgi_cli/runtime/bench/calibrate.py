"""`tgi bench calibrate`: what the client itself manages on this machine.

The load loop runs against `tgi bench mock --null`, a process of its own that answers as fast as it
can, with one worker, two, and so on. Spec: bench.md section 11.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tgi_cli.errors import StartError
from tgi_cli.runtime.bench.calibration import write_calibration
from tgi_cli.runtime.bench.facts import num_cores
from tgi_cli.runtime.bench.messages import SetUp, Timeouts
from tgi_cli.runtime.bench.pool import WorkerPool
from tgi_cli.runtime.bench.protocols import PROTOCOLS, BodyOptions
from tgi_cli.runtime.bench.records import StageRecord
from tgi_cli.runtime.bench.screen import BenchScreen
from tgi_cli.runtime.bench.stage_plan import ReadyPlan
from tgi_cli.runtime.bench.stage_run import StageRunner
from tgi_cli.runtime.bench.stages import PlannedRequest, PromptInput, StageSpec
from tgi_cli.runtime.bench.transport import TransportOptions
from tgi_cli.runtime.bench.window import Interrupts, StopRules

_NS = 1_000_000_000
_START_S = 30.0
_USERS = 32  # a worker
_LONG_TOKENS, _SHORT_TOKENS = 256, 1
_LAG_RATE = 500.0  # requests a second, at which lag is looked at
_WARMUP_S = 1.0


@dataclass(frozen=True, slots=True)
class _Row:
    num_workers: int
    events_s: float
    requests_s: float
    lag_p99_s: float
    added_p99_s: float  # of the time to the first token, which a null server answers with none


def calibrate(duration_s: float, max_workers: int | None, screen: BenchScreen) -> int:
    """Measure, print and store; return the exit code. Raises `StartError`."""
    most = max_workers or num_cores()
    rows = asyncio.run(_measure_all(duration_s, most, screen))
    one = rows[0]
    figures = {
        "events_s": one.events_s,
        "requests_s": one.requests_s,
        "lag_p99_s": one.lag_p99_s,
        "added_latency_p99_s": one.added_p99_s,
    }
    try:
        path = write_calibration(figures)
    except OSError as exc:
        raise StartError(f"The figures can't be stored: {exc.strerror}") from exc
    screen.report(_table(rows))
    screen.say(f"Stored in {path}")
    return 0


async def _measure_all(duration_s: float, most: int, screen: BenchScreen) -> list[_Row]:
    rows = []
    async with _null_server() as url:
        for number in range(1, most + 1):
            screen.say(f"{number} worker{'s' if number > 1 else ''} …")
            rows.append(await _measure(url, number, duration_s))
    return rows


@contextlib.asynccontextmanager
async def _null_server() -> AsyncIterator[str]:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tgi_cli", "bench", "mock", "--null", "--port", "0"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout is not None
    try:
        line = (await asyncio.wait_for(server.stdout.readline(), _START_S)).decode()
        url = line.strip().rpartition(" ")[2]
        if not url.startswith("http"):
            raise StartError(f"The mock server didn't start: {line.strip() or 'it ended'}")
        yield url
    except TimeoutError as exc:
        raise StartError("The mock server didn't start in time.") from exc
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


async def _measure(url: str, num_workers: int, duration_s: float) -> _Row:
    options = BodyOptions(model="mock")
    chat = PROTOCOLS["chat"](options)
    set_up = SetUp(
        worker=0,
        num_workers=num_workers,
        origin=time.perf_counter_ns(),
        protocol="chat",
        body=options,
        transport=TransportOptions(url=url + chat.path),
        timeouts=Timeouts(),
    )
    pool = WorkerPool(set_up, num_workers)
    runner = StageRunner(pool, StopRules(), Interrupts(), lambda *_: None)
    await pool.start()
    try:
        users = float(_USERS * num_workers)
        long = await _run(runner, "concurrency", users, _LONG_TOKENS, duration_s)
        short = await _run(runner, "concurrency", users, _SHORT_TOKENS, duration_s)
        paced = await _run(runner, "rate", _LAG_RATE * num_workers, _SHORT_TOKENS, duration_s)
    finally:
        await pool.close()
    return _Row(
        num_workers,
        _events_s(long) / num_workers,
        _requests_s(short) / num_workers,
        _p99([r.wake - r.sched for r in paced.requests if r.wake is not None]),
        _p99([r.first - r.sched for r in paced.requests if r.first is not None]),
    )


class _SameBody:
    """The same request again and again: how fast it goes is all that matters."""

    is_whole = False

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._num_made = 0
        self.requests = self.more(4 * _USERS)

    def more(self, count: int) -> list[PlannedRequest]:
        first, self._num_made = self._num_made, self._num_made + count
        return [
            PlannedRequest(index=index, sched_s=None, body=self._body)
            for index in range(first, self._num_made)
        ]


async def _run(
    runner: StageRunner, kind: str, value: float, num_tokens: int, duration_s: float
) -> StageRecord:
    body = PROTOCOLS["chat"](BodyOptions(model="mock")).body(PromptInput(text="hello"), num_tokens)
    is_closed = kind == "concurrency"
    spec = StageSpec(
        key=f"{kind}={value:g}",
        kind="concurrency" if is_closed else "rate",
        value=value,
        arrival="constant",
        duration_s=duration_s,
        warmup_s=_WARMUP_S,
        drain_s=5.0,
        keeps_tail_load=False,
    )

    def plan(length_s: float) -> _SameBody | ReadyPlan:
        if is_closed:
            return _SameBody(body)
        count = int(value * length_s)
        return ReadyPlan(
            [PlannedRequest(index=i, sched_s=i / value, body=body) for i in range(count)]
        )

    await runner.warm_up(spec, plan(_WARMUP_S))
    return await runner.measure(spec, plan(duration_s), 0)


def _events_s(record: StageRecord) -> float:
    span_s = (record.w1 - record.w0) / _NS
    tokens = (
        count
        for request in record.requests
        for at, count in zip(request.deliveries, request.tokens, strict=True)
        if record.w0 <= at < record.w1
    )
    return sum(tokens) / span_s


def _requests_s(record: StageRecord) -> float:
    ends = [r.end for r in record.requests if r.is_ok and r.end is not None]
    return sum(record.w0 <= end < record.w1 for end in ends) / ((record.w1 - record.w0) / _NS)


def _p99(values: list[int]) -> float:
    ordered = sorted(values)
    return ordered[-(-len(ordered) * 99 // 100) - 1] / _NS if ordered else float("inf")


def _table(rows: list[_Row]) -> str:
    lines = ["workers  events/s each  requests/s each  lag p99 ms  added to ttft p99 ms"]
    lines += [
        f"{row.num_workers:7d}  {row.events_s:13,.0f}  {row.requests_s:15,.0f}  "
        f"{row.lag_p99_s * 1e3:10.2f}  {row.added_p99_s * 1e3:20.2f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
