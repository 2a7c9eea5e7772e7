"""Who sends when: by the clock, from users, in bursts and in conversations; nobody is skipped."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.builders.endpoint import END, HEAD, Answer, answering_with, chat, event, said
from tgi_cli.runtime.bench.exchange import Exchanges
from tgi_cli.runtime.bench.loops import LoadLoop, PlanQueue
from tgi_cli.runtime.bench.messages import Begin, Timeouts, User
from tgi_cli.runtime.bench.pacing import Pacer
from tgi_cli.runtime.bench.protocols import PROTOCOLS, BodyOptions
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.stages import PlannedRequest, PromptInput, StageSpec
from tgi_cli.runtime.bench.transport import Transport, TransportOptions

S = 1_000_000_000
CHAT = PROTOCOLS["chat"](BodyOptions())


def plan_of(times: Sequence[float | None], **fields: Any) -> list[PlannedRequest]:
    return [
        PlannedRequest(
            index=index, sched_s=at, body=CHAT.body(PromptInput(text=f"q{index}"), 3), **fields
        )
        for index, at in enumerate(times)
    ]


async def run_loop(
    spec: StageSpec,
    plan: list[PlannedRequest],
    answer: Answer | Callable[[int, str, Any], Answer],
    *,
    until_s: float | None = None,
    finish_after_s: float | None = None,
    cap: int | None = None,
    num_requests: int | None = None,
    users: int = 0,
) -> tuple[list[RequestRecord], Any]:
    """Run a plan against `answer`; return the records by plan and time, and the endpoint."""
    origin = time.perf_counter_ns()

    def clock() -> int:
        return time.perf_counter_ns() - origin

    async with answering_with(answer) as endpoint:
        transport = Transport(TransportOptions(url=endpoint.url + CHAT.path), clock)
        exchanges = Exchanges(transport, CHAT, Timeouts(), clock, streams=True)
        exchanges.gate = None if cap is None else asyncio.Semaphore(cap)
        queue = PlanQueue()
        queue.add(plan, is_last=True)
        errors: list[BaseException] = []
        begin = Begin(
            spec=spec,
            is_warmup=False,
            start=clock(),
            until=None if until_s is None else clock() + int(until_s * S),
            num_requests=num_requests,
            users=[User(number, 0.0, None) for number in range(users)],
        )
        pacer = Pacer(clock, origin)
        loop = LoadLoop(begin, queue, exchanges, CHAT, pacer, clock, 0, errors.append)
        task = asyncio.create_task(loop.run())
        if finish_after_s is not None:
            await asyncio.sleep(finish_after_s)
            loop.stop()
            await exchanges.finish_all()
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.close()
        pacer.close()
        assert not errors
    records = [each.record for each in exchanges.done] + loop.never_sent()
    return sorted(records, key=lambda record: (record.sched, record.index)), endpoint


def rate(**fields: Any) -> StageSpec:
    return StageSpec(key="rate", kind="rate", value=50.0, keeps_tail_load=False, **fields)


def concurrency(users: int, **fields: Any) -> StageSpec:
    return StageSpec(key="c", kind="concurrency", value=float(users), **fields)


async def test_each_request_keeps_its_planned_time_however_late_it_is() -> None:
    times = [0.0, 0.01, 0.011, 0.04]

    records, _ = await run_loop(rate(), plan_of(times), chat("a"))

    start = records[0].sched
    assert [record.sched - start for record in records] == [round(at * S) for at in times]
    assert all(record.wake is not None and record.wake >= record.sched for record in records)
    assert all(record.is_ok for record in records)


async def test_a_cap_delays_the_sending_but_not_the_plan() -> None:
    records, endpoint = await run_loop(rate(), plan_of([0.0] * 5), chat("a", "b"), cap=1)

    assert endpoint.max_open == 1
    assert {record.sched for record in records} == {records[0].sched}
    gates = sorted(record.gate or 0 for record in records)
    ends = sorted(record.end or 0 for record in records)
    assert all(gate >= end for gate, end in zip(gates[1:], ends, strict=False))


async def test_who_waits_when_the_drain_is_over_is_dropped_not_forgotten() -> None:
    never = asyncio.Event()

    records, _ = await run_loop(
        rate(), plan_of([0.0, 0.0, 9.0]), [HEAD, never], cap=1, finish_after_s=0.1
    )

    assert [record.failure for record in records] == ["unfinished", "dropped", "dropped"]


async def test_requests_planned_after_the_window_only_keep_the_load_up() -> None:
    spec = msgspec.structs.replace(rate(), keeps_tail_load=True)

    records, _ = await run_loop(spec, plan_of([0.0, 0.01, 0.05]), chat("a"), until_s=0.03)

    assert [record.phase for record in records] == ["measure", "measure", "tail"]


async def test_a_user_sends_again_after_its_answer_and_its_thought() -> None:
    spec = concurrency(2, think_time_s=0.02, keeps_tail_load=False)

    records, endpoint = await run_loop(
        spec, plan_of([None] * 9), chat("a"), users=2, num_requests=6
    )

    assert len(records) == 6
    assert endpoint.max_open <= 2
    for user in (0, 1):
        own = [record for record in records if record.user == user]
        for before, after in itertools.pairwise(own):
            assert after.sched == (before.end or 0) + 20_000_000


async def test_a_burst_waits_for_all_before_the_next() -> None:
    spec = StageSpec(key="b", kind="burst", value=3.0, num_repeats=2, keeps_tail_load=False)

    records, _ = await run_loop(spec, plan_of([None] * 6), chat("a"))

    first, second = records[:3], records[3:]
    assert len({record.sched for record in first}) == len({record.sched for record in second}) == 1
    assert second[0].sched > max(record.end or 0 for record in first)


async def test_a_conversation_quotes_what_the_server_said() -> None:
    spec = StageSpec(key="v", kind="conversations", value=1.0, starts_by="concurrency")
    plan = [
        msgspec.structs.replace(each, conversation=0, turn=index, think_s=0.01)
        for index, each in enumerate(plan_of([None] * 3))
    ]

    def answer(number: int, _path: str, _body: object) -> Answer:
        return chat(f"answer {number}")

    records, endpoint = await run_loop(spec, plan, answer, users=1)

    assert [record.turn for record in records] == [0, 1, 2]
    assert records[1].sched == (records[0].end or 0) + 10_000_000
    assert [message["content"] for message in endpoint.bodies[2]["messages"]] == [
        "q0",
        "answer 0",
        "q1",
        "answer 1",
        "q2",
    ]


async def test_a_conversation_ends_with_the_turn_that_fails() -> None:
    spec = StageSpec(key="v", kind="conversations", value=1.0, starts_by="concurrency")
    plan = [msgspec.structs.replace(each, conversation=0) for each in plan_of([None] * 3)]

    records, _ = await run_loop(spec, plan, [HEAD, event(said("a")), END], users=1)

    assert [record.failure for record in records] == ["truncated"]
