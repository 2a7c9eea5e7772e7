"""The mock's parts: requests out of bytes, slots, faults, the clock, prefixes, scripts."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.bench.mock.clock import WorkClock
from tgi_cli.runtime.bench.mock.connection import BadRequest, HttpRequest, take_request
from tgi_cli.runtime.bench.mock.counting import Counter, PrefixMemory
from tgi_cli.runtime.bench.mock.dialects import FORMS, Answer, text_of
from tgi_cli.runtime.bench.mock.faults import pick_fault
from tgi_cli.runtime.bench.mock.script import Write, script
from tgi_cli.runtime.bench.mock.slots import QueueFull, Slots
from tgi_cli.runtime.config.mock import DIALECTS, Dialect, Fault, Freeze, MockOptions

POST = b"POST /generate?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"


def requests_of(pieces: list[bytes]) -> list[HttpRequest]:
    buffer, found = bytearray(), []
    for piece in pieces:
        buffer += piece
        while (request := take_request(buffer)) is not None:
            found.append(request)
    return found


@given(
    bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 400), max_size=9),
)
def test_requests_are_found_however_their_bytes_arrive(
    bodies: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(POST % (len(body), body) for body in bodies)
    borders = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]

    found = requests_of([wire[a:b] for a, b in itertools.pairwise(borders)])

    assert [request.body for request in found] == bodies
    assert {request.path for request in found} == {"/generate"}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 411),
        (b"x" * 70_000, 431),
    ],
)
def test_bytes_that_are_no_request_are_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        requests_of([head])

    assert caught.value.status == status


async def test_slots_are_given_in_the_order_of_arrival() -> None:
    slots, order = Slots(2, None), []
    leave = [asyncio.Event() for _ in range(5)]

    async def visit(number: int) -> None:
        async with slots.slot():
            order.append(number)
            await leave[number].wait()

    visits = [asyncio.create_task(visit(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert (order, slots.num_running, slots.num_waiting) == ([0, 1], 2, 3)

    visits[3].cancel()  # one that waits
    for number in (1, 0, 2, 4):
        leave[number].set()
    await asyncio.wait(visits)

    assert order == [0, 1, 2, 4]
    assert (slots.num_running, slots.num_waiting) == (0, 0)


async def test_a_slot_that_comes_as_its_client_leaves_goes_to_the_next() -> None:
    slots = Slots(1, None)
    first = slots.slot()
    await first.__aenter__()
    leaving = asyncio.create_task(slots.slot().__aenter__())
    await asyncio.sleep(0)

    await first.__aexit__(None, None, None)
    leaving.cancel()
    await asyncio.wait([leaving])

    assert slots.num_running == 0


async def test_a_full_queue_refuses() -> None:
    slots = Slots(1, 0)

    async with slots.slot():
        with pytest.raises(QueueFull):
            await slots.slot().__aenter__()


@given(
    shares=st.lists(st.floats(0.01, 0.33), min_size=1, max_size=3),
    num_spared=st.integers(0, 9),
    num_requests=st.integers(1, 300),
)
def test_faults_hit_their_share_of_any_number_of_requests(
    shares: list[float], num_spared: int, num_requests: int
) -> None:
    faults = tuple(Fault(share, "reset", pause_s=n) for n, share in enumerate(shares))

    picked = [pick_fault(faults, num_spared, index) for index in range(num_spared + num_requests)]

    assert picked[:num_spared] == [None] * num_spared
    for fault in faults:
        assert abs(picked.count(fault) - fault.share * num_requests) < 4


async def test_work_time_stands_still_during_the_freeze() -> None:
    clock = WorkClock(Freeze(0.05, at_request=1))
    clock.request_came()
    assert clock.frozen_span is None
    clock.request_came()
    assert clock.frozen_span is not None
    begin, end = clock.frozen_span

    await clock.sleep_until(begin + 1_000_000)
    now = time.perf_counter_ns()

    assert end - begin == 50_000_000
    assert now >= end + 1_000_000
    assert clock.now() >= begin + 1_000_000
    await clock.thawed()  # at once: it is over


async def test_a_freeze_by_time_begins_after_the_first_request() -> None:
    clock = WorkClock(Freeze(0.03, after_s=0.01))
    clock.request_came()
    assert clock.frozen_span is not None

    await clock.sleep_until(clock.frozen_span[0])
    await clock.thawed()

    assert time.perf_counter_ns() >= clock.frozen_span[1]


def test_words_are_counted_and_found_without_a_tokenizer() -> None:
    counter = Counter(None)

    spans = counter.spans("café a  a", add_special_tokens=True)

    assert [(span.text, span.start, span.stop) for span in spans] == [
        ("café", 0, 5),
        ("a", 6, 7),
        ("a", 9, 10),
    ]
    assert len(counter.units("café a  a", num_extra=3)) == 6


def test_only_a_common_beginning_in_whole_blocks_is_cached() -> None:
    memory = PrefixMemory()
    memory.look_up(list(range(50)))

    assert memory.look_up([*range(40), 99]) == 32
    assert memory.look_up([99, *range(50)]) == 0
    assert memory.look_up(list(range(15))) == 0
    assert (memory.num_hit_tokens, memory.num_query_tokens) == (32, 50 + 41 + 51 + 15)


def answer_of(num_tokens: int, **others: Any) -> Answer:
    fields: dict[str, Any] = {
        "model_id": "m",
        "input_tokens": 7,
        "cached_tokens": None,
        "num_tokens": num_tokens,
        "ends_by_itself": False,
        "usage": "final",
        "usage_offset": 0,
        "sends_token_ids": False,
        "num_reasoning_tokens": 0,
        "has_role_event": True,
        "has_details": True,
    }
    return Answer(**fields | others)


def events_of(writes: list[Write]) -> list[Any]:
    wire = b"".join(piece for write in writes for piece in write.pieces)
    frames = wire.decode().split("\n\n")
    assert frames.pop() == ""
    datas = [frame.removeprefix("data:").lstrip() for frame in frames]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


def text_in(event: Any) -> str:
    if "token" in event:
        return event["token"]["text"] if event["token"] else ""
    return "".join(
        choice.get("text", "") + choice.get("delta", {}).get("content", "")
        for choice in event["choices"]
    )


@given(
    dialect=st.sampled_from(DIALECTS),
    num_tokens=st.integers(1, 41),
    tokens_per_event=st.integers(1, 9),
    events_per_write=st.integers(1, 5),
    writes_per_event=st.integers(1, 7),
)
def test_packing_and_splitting_change_neither_text_nor_tokens(
    dialect: Dialect,
    num_tokens: int,
    tokens_per_event: int,
    events_per_write: int,
    writes_per_event: int,
) -> None:
    options = MockOptions(
        tokens_per_event=tokens_per_event,
        events_per_write=1 if writes_per_event > 1 else events_per_write,
        writes_per_event=writes_per_event,
    )

    writes = list(script(FORMS[dialect], answer_of(num_tokens), options, None))

    assert "".join(text_in(event) for event in events_of(writes) if event != "[DONE]") == text_of(
        0, num_tokens
    )
    assert sum(write.num_tokens for write in writes) == num_tokens
    waits = [write.waits_for for write in writes if write.num_tokens]
    assert waits == sorted(waits)
    assert waits[-1] == num_tokens - 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("num_tokens", [1, 2, 7])
def test_a_truncated_answer_has_tokens_and_no_end_mark(dialect: Dialect, num_tokens: int) -> None:
    answer = answer_of(num_tokens)

    writes = list(script(FORMS[dialect], answer, MockOptions(), "truncated"))

    events = events_of(writes)
    assert sum(write.num_tokens for write in writes) == (num_tokens + 1) // 2
    assert "[DONE]" not in events
    assert not any(event.get("generated_text") for event in events)
    assert not any(
        choice["finish_reason"] for event in events for choice in event.get("choices", [])
    )


def test_usage_is_given_at_the_end_in_every_event_or_never() -> None:
    def usages(usage: str) -> list[int | None]:
        answer = answer_of(3, usage=usage, usage_offset=2, has_role_event=False)
        events = events_of(list(script(FORMS["chat"], answer, MockOptions(), None)))
        return [
            (event.get("usage") or {}).get("completion_tokens")
            for event in events
            if event != "[DONE]"
        ]

    assert usages("none") == [None] * 4
    assert usages("final") == [None] * 4 + [5]
    assert usages("continuous") == [3, 4, 5, 5, 5]


def test_the_first_tokens_of_a_chat_may_be_reasoning() -> None:
    answer = answer_of(5, num_reasoning_tokens=3, has_role_event=False)

    writes = list(script(FORMS["chat"], answer, MockOptions(tokens_per_event=2), None))

    deltas = [event["choices"][0]["delta"] for event in events_of(writes)[:3]]
    assert deltas == [
        {"reasoning_content": text_of(0, 2)},
        {"reasoning_content": text_of(2, 3), "content": text_of(3, 4)},
        {"content": text_of(4, 5)},
    ]
