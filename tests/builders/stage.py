"""A stage of `tgi bench`, run by real workers against a URL, and the mock's notes beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.messages import SetUp, Timeouts
from tgi_cli.runtime.bench.mock.write_log import WrittenRequest, read_write_log
from tgi_cli.runtime.bench.pool import WorkerPool
from tgi_cli.runtime.bench.protocols import PROTOCOLS, BodyOptions, ProtocolName
from tgi_cli.runtime.bench.records import RequestRecord, StageRecord
from tgi_cli.runtime.bench.result import Stage
from tgi_cli.runtime.bench.stage_run import Interrupts, StageRunner, StopRules
from tgi_cli.runtime.bench.stages import PlannedRequest, PromptInput, StageSpec
from tgi_cli.runtime.bench.transport import TransportOptions

MS = 1_000_000  # ns


@dataclass(frozen=True)
class StageOutcome:
    record: StageRecord
    stage: Stage
    origin: int  # the run's start on the machine's clock

    @property
    def requests(self) -> list[RequestRecord]:
        return [request for request in self.record.requests if request.phase == "measure"]


class NumberedPlan:
    """Request i asks with i + 1 words, by which the mock's log knows it again."""

    def __init__(
        self, spec: StageSpec, protocol: ProtocolName, options: BodyOptions, output_tokens: int,
        schedule: Sequence[float] | None,
    ) -> None:  # fmt: skip
        self._body = PROTOCOLS[protocol](options).body
        self._output_tokens = output_tokens
        self._num_made = 0
        self.is_whole = schedule is not None
        self.requests = [self._next(at) for at in schedule or ()]
        if not self.is_whole:
            self.requests = self.more(int(max(spec.value, spec.ramp_to or 0)) * 4)

    def more(self, count: int) -> list[PlannedRequest]:
        return [self._next(None) for _ in range(count)]

    def _next(self, at: float | None) -> PlannedRequest:
        index, self._num_made = self._num_made, self._num_made + 1
        prompt = PromptInput(text="word " * (index + 1))
        return PlannedRequest(
            index=index,
            sched_s=at,
            body=self._body(prompt, self._output_tokens),
            input_tokens=index + 1,
            output_tokens=self._output_tokens,
        )


def open_loop(rate: float, duration_s: float, **fields: Any) -> StageSpec:
    """Return a stage that sends by the clock, without warm-up or tail."""
    known = {"warmup_s": 0.0, "drain_s": 20.0, "keeps_tail_load": False, "arrival": "constant"}
    return StageSpec(
        key=f"rate={rate:g}", kind="rate", value=rate, duration_s=duration_s, **(known | fields)
    )


def closed_loop(users: int, **fields: Any) -> StageSpec:
    """Return a stage of users who wait for their answers, without warm-up or tail."""
    known = {"warmup_s": 0.0, "drain_s": 20.0, "keeps_tail_load": False, "stagger_s": 0.0}
    return StageSpec(
        key=f"concurrency={users}", kind="concurrency", value=users, **(known | fields)
    )


async def run_stage(
    url: str,
    spec: StageSpec,
    *,
    protocol: ProtocolName = "chat",
    output_tokens: int = 16,
    schedule: Sequence[float] | None = None,
    body: BodyOptions | None = None,
    num_workers: int = 1,
    busy_s: float = 0.0,
    timeouts: Timeouts | None = None,
    limits: dict[str, float] | None = None,
) -> StageOutcome:
    """Run one stage; an open loop sends at equal gaps unless a schedule (seconds) is given."""
    body = body or BodyOptions()
    if schedule is None and spec.kind == "rate":
        assert spec.duration_s is not None
        schedule = [i / spec.value for i in range(round(spec.value * spec.duration_s))]
    elif schedule is None and spec.kind == "burst":
        schedule = [0.0] * int(spec.value * spec.num_repeats)
    plan = NumberedPlan(spec, protocol, body, output_tokens, schedule)
    origin = time.perf_counter_ns()
    set_up = SetUp(
        worker=0,
        num_workers=num_workers,
        origin=origin,
        protocol=protocol,
        body=body,
        transport=TransportOptions(url=url + PROTOCOLS[protocol](body).path),
        timeouts=timeouts or Timeouts(),
        busy_s=busy_s,
    )
    pool = WorkerPool(set_up, num_workers)
    await pool.start()
    try:
        runner = StageRunner(
            pool=pool,
            rules=StopRules(max_error_share=None),
            interrupts=Interrupts(),
            show=lambda *_: None,
            count_text=lambda text: len(text.split()),
        )
        await runner.warm_up(spec, plan)
        record = await runner.measure(spec, plan, 0)
    finally:
        await pool.close()
    return StageOutcome(record, measure_stage(record, spec, limits), origin)


@dataclass(frozen=True)
class Truth:
    """A request as the client stamped it and as the mock wrote it."""

    record: RequestRecord
    written: WrittenRequest
    origin: int

    def written_at(self, num_tokens: int) -> int:
        """Return when the mock wrote the token that made that many, ns from the run's start."""
        so_far = 0
        for moment, count in zip(self.written.writes, self.written.tokens, strict=True):
            so_far += count
            if so_far >= num_tokens:
                return moment - self.origin
        raise AssertionError((num_tokens, self.written))

    @property
    def delays(self) -> list[int]:
        """By how many ns each delivery, and the end, was stamped after it had been written."""
        so_far, delays = 0, []
        for moment, count in zip(self.record.deliveries, self.record.tokens, strict=True):
            so_far += count
            delays.append(moment - self.written_at(so_far))
        if self.written.ended is not None and self.record.end is not None:
            delays.append(self.record.end + self.origin - self.written.ended)
        return delays


def beside_the_log(outcome: StageOutcome, log: Path) -> list[Truth]:
    """Lay each request that the mock has read beside the mock's notes of it."""
    written = {
        entry.input_tokens: entry for entry in read_write_log(log) if entry.input_tokens is not None
    }
    return [
        Truth(record, entry, outcome.origin)
        for record in outcome.requests
        if (entry := written.get(record.index + 1)) is not None
    ]
