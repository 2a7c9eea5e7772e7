"""`tgi bench mock` over HTTP: what clients of each protocol see, every fault, and the log."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.builders.mock import mock_process, mock_server
from tests.builders.tokenizers import byte_level_tokenizer
from tgi_cli.runtime.bench.mock.clock import WorkClock
from tgi_cli.runtime.bench.mock.dialects import text_of
from tgi_cli.runtime.bench.mock.generation import Pace
from tgi_cli.runtime.bench.mock.write_log import read_write_log
from tgi_cli.runtime.config.mock import DIALECTS, Dialect, Fault, MockOptions
from tgi_cli.runtime.config.spreads import constant, parse_spread

PATHS: dict[Dialect, str] = {
    "tgi": "/generate_stream",
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
}


def body_of(dialect: Dialect, max_tokens: int = 6, **others: Any) -> dict[str, Any]:
    if dialect == "tgi":
        return {"inputs": "a b c", "parameters": {"max_new_tokens": max_tokens} | others}
    fields = {"max_tokens": max_tokens, "stream": True} | others
    if dialect == "completions":
        return {"prompt": "a b c"} | fields
    return {"messages": [{"role": "user", "content": "a b c"}]} | fields


async def ask(url: str, path: str, body: Any) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body) as response,
    ):
        return response.status, (await response.read()).decode()


async def get(url: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as response:
        return response.status, (await response.read()).decode()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_has_as_many_tokens_as_were_asked_for(dialect: Dialect) -> None:
    async with mock_server() as url:
        status, text = await ask(url, PATHS[dialect], body_of(dialect, 6))

    assert status == 200
    events = [frame[5:].strip() for frame in text.split("\n\n") if frame]
    if dialect == "tgi":
        assert json.loads(events[-1])["generated_text"] == text_of(0, 6)
        assert len(events) == 6
    else:
        assert events[-1] == "[DONE]"
        assert len(events) == 6 + 2 + (dialect == "chat")  # finish, [DONE], role


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/generate", body_of("tgi", 4, details=True), "generated_text"),
        ("/v1/completions", body_of("completions", 4, stream=False), "choices"),
        ("/v1/chat/completions", body_of("chat", 4, stream=False), "choices"),
    ],
)
async def test_a_whole_reply_has_the_text(path: str, body: dict[str, Any], text: str) -> None:
    async with mock_server() as url:
        status, raw = await ask(url, path, body)

    reply = json.loads(raw)
    assert status == 200
    assert text_of(0, 4) in json.dumps(reply[text], ensure_ascii=False)
    if path != "/generate":
        assert reply["usage"]["prompt_tokens"] == 3
        assert reply["usage"]["completion_tokens"] == 4


async def test_an_answer_ends_by_itself_unless_told_to_go_on() -> None:
    async def length(url: str, **others: Any) -> int:
        body = body_of("completions", 20, stream=False, **others)
        _, raw = await ask(url, "/v1/completions", body)
        return int(json.loads(raw)["usage"]["completion_tokens"])

    async with mock_server(tokens=constant(5)) as url:
        assert await length(url) == 5
        assert await length(url, min_tokens=9) == 9
        assert await length(url, ignore_eos=True) == 20


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_refused_fields_are_named(dialect: Dialect) -> None:
    async with mock_server(refused_fields=("ignore_eos",)) as url:
        status, text = await ask(url, PATHS[dialect], body_of(dialect, ignore_eos=True))
        taken, _ = await ask(url, PATHS[dialect], body_of(dialect))

    assert status == (422 if dialect == "tgi" else 400)
    assert "ignore_eos" in text
    assert taken == 200


@pytest.mark.parametrize(
    "body",
    [[], {}, {"prompt": 3}, {"prompt": [1, "a"]}, {"prompt": "a", "max_tokens": "many"}],
)
async def test_bodies_that_ask_for_nothing_are_refused(body: Any) -> None:
    async with mock_server() as url:
        status, _ = await ask(url, "/v1/completions", body)

    assert status == 400


async def test_only_the_protocols_that_were_asked_for_are_served() -> None:
    async with mock_server(dialects=("tgi",)) as url:
        assert (await get(url, "/info"))[0] == 200
        assert (await get(url, "/v1/models"))[0] == 404
        assert (await ask(url, "/v1/completions", body_of("completions")))[0] == 404

    async with mock_server(dialects=("chat",), model_id="m") as url:
        assert (await get(url, "/info"))[0] == 404
        assert json.loads((await get(url, "/v1/models"))[1])["data"][0]["id"] == "m"


async def test_input_is_counted_by_a_tokenizers_file(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(byte_level_tokenizer().tokenizer_json, encoding="utf-8")
    text = "xyzzy é"

    async with mock_server(tokenizer_file=file, num_template_tokens=7) as url:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        _, raw = await ask(url, "/v1/chat/completions", body)
        _, tokens = await ask(url, "/tokenize", {"inputs": text})

    assert json.loads(raw)["usage"]["prompt_tokens"] == len(json.loads(tokens)) + 7
    assert json.loads(tokens)[-1]["stop"] == len(text.encode())


async def test_a_prefix_cache_says_what_it_had() -> None:
    body = {"prompt": "word " * 40, "max_tokens": 1}

    async with mock_server(caches_prefixes=True) as url:
        replies = [json.loads((await ask(url, "/v1/completions", body))[1]) for _ in range(2)]
        _, metrics = await get(url, "/metrics")

    cached = [reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies]
    assert cached == [0, 32]
    assert "tgi_prefix_cache_hit_tokens 32\n" in metrics


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_fault_looks_like_itself(dialect: Dialect, tmp_path: Path) -> None:
    async def meet(fault: Fault) -> tuple[int, str] | str:
        async with mock_server(faults=(fault,), log_file=tmp_path / fault.kind) as url:
            try:
                async with asyncio.timeout(0.3 if fault.kind == "hang" else 30):
                    return await ask(url, PATHS[dialect], body_of(dialect, 6))
            except (aiohttp.ClientError, TimeoutError) as exc:
                return type(exc).__name__

    def has_end(text: str) -> bool:
        return "[DONE]" in text or '"finish_reason":"length"' in text or text_of(0, 6) in text

    assert (await meet(Fault(1.0, "status", status=429)))[0] == 429
    assert await meet(Fault(1.0, "cut")) == "ClientPayloadError"
    assert await meet(Fault(1.0, "reset")) in ("ClientOSError", "ClientPayloadError")
    assert await meet(Fault(1.0, "hang")) == "TimeoutError"
    status, text = await meet(Fault(1.0, "truncated"))
    assert (status, has_end(text)) == (200, False)
    status, text = await meet(Fault(1.0, "error-event"))
    assert (status, has_end(text)) == (200, False)
    assert '"error":' in text
    status, text = await meet(Fault(1.0, "garbage"))
    assert text.endswith('{"delta"\n\n')
    status, text = await meet(Fault(1.0, "empty"))
    assert (status, "café" in text) == (200, False)
    assert '"generated_text":""' in text or "[DONE]" in text
    status, text = await meet(Fault(1.0, "stall", pause_s=0.05))
    assert has_end(text)
    for kind in ("status", "cut", "reset", "hang", "truncated", "empty", "stall"):
        assert [entry.outcome for entry in read_write_log(tmp_path / kind)] == [kind]


async def test_a_stall_and_a_freeze_put_tokens_off(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async with mock_server(faults=(Fault(1.0, "stall", pause_s=0.08),), log_file=log) as url:
        await ask(url, "/v1/completions", body_of("completions", 7))

    [entry] = read_write_log(log)
    gaps = [b - a for a, b in itertools.pairwise(entry.writes)]
    assert gaps.index(max(gaps)) == 2  # before the token in the middle
    assert max(gaps) >= 79e6


async def test_a_server_with_slots_saturates_and_refuses(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async with mock_server(num_slots=1, max_queue=2, ttft_s=constant(0.05), log_file=log) as url:
        replies = await asyncio.gather(
            *(ask(url, "/v1/completions", body_of("completions", 1)) for _ in range(5))
        )

    assert sorted(status for status, _ in replies) == [200, 200, 200, 429, 429]
    served = sorted(
        (entry for entry in read_write_log(log) if entry.outcome == "ok"),
        key=lambda entry: entry.index,
    )
    for before, after in itertools.pairwise(served):
        assert before.ended is not None
        assert after.started is not None
        assert after.started >= before.ended


async def test_a_client_that_leaves_frees_its_slot(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async with mock_server(num_slots=1, log_file=log, split_gap_s=9.0, writes_per_event=2) as url:
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + "/v1/completions", json=body_of("completions")) as reply,
        ):
            await reply.content.readany()
        async with asyncio.timeout(9):
            while "batch_current_size 0" not in (await get(url, "/metrics"))[1]:
                pass  # asked again

    assert [entry.outcome for entry in read_write_log(log)] == ["gone"]


async def test_the_log_says_what_was_written_and_in_which_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = {"tokens_per_event": 2, "events_per_write": 2, "itl_s": constant(0.002)}

    async with mock_server(log_file=log, ttft_s=constant(0.01), **options) as url:
        for num_tokens in (1, 9):
            await ask(url, "/v1/completions", body_of("completions", num_tokens))

    short, long = read_write_log(log)
    assert (short.tokens, short.events, short.input_tokens) == ([1], [1], 3)
    assert (long.tokens, long.events, long.output_tokens) == ([4, 4, 1], [2, 2, 1], 9)
    assert short.started is not None
    assert short.writes[0] - short.started >= 10e6
    stamps = [long.received, long.started, long.headers, *long.writes, long.ended]
    assert stamps == sorted(stamps)


async def test_the_same_seed_keeps_the_same_pace() -> None:
    spread = parse_spread("lognormal:median=1,sigma=1", float)

    def due(seed: int, index: int) -> list[float]:
        options = MockOptions(ttft_s=spread, itl_s=spread, seed=seed)
        pace = Pace(options, WorkClock(None), index)
        return [pace.due_s(position) for position in range(5)]

    assert due(1, 2) == due(1, 2)
    assert due(1, 2) != due(1, 3)
    assert due(1, 2) != due(2, 2)


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    log = tmp_path / "log"

    with mock_process("--null", "--protocol", "chat", "--log", str(log)) as url:
        status, _ = asyncio.run(ask(url, PATHS["chat"], body_of("chat", 300)))

    assert status == 200
    assert [sum(entry.tokens) for entry in read_write_log(log)] == [300]


@pytest.mark.perf
def test_a_null_mock_feeds_30_000_events_a_second_of_its_core() -> None:
    async def load(url: str) -> int:
        body = body_of("chat", 500)
        replies = await asyncio.gather(*(ask(url, PATHS["chat"], body) for _ in range(200)))
        return sum(text.count("data:") for _, text in replies)

    before = os.times()
    with mock_process("--null") as url:
        num_events = asyncio.run(load(url))
    used = os.times()

    used_s = used.children_user + used.children_system
    used_s -= before.children_user + before.children_system
    assert num_events / used_s > 30_000  # its start is in it
