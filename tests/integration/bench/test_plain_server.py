"""A server that nobody here wrote: what OpenAI's protocol promises and nothing more, or less."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.builders.bench_run import BenchRun, run_bench
from tests.builders.bench_tokenizers import family_tokenizer
from tests.builders.endpoint import END, HEAD, Answer, answering_with, chunk, said, status

NUM_TOKENS = 12
LOAD = ("--concurrency=2", "--requests=12", "--input-tokens=30", f"--output-tokens={NUM_TOKENS}")


class PlainServer:
    """Chats of `NUM_TOKENS` words, as many as are asked for; other routes don't exist.

    `pack` words go into an event, whose bytes are split anywhere; `lie` is added to the usage.
    """

    def __init__(self, *, pack: int = 1, lie: int = 0, ends: bool = True) -> None:
        self._pack, self._lie, self._ends = pack, lie, ends
        self._draw = random.Random(3)

    def __call__(self, _number: int, path: str, body: Any) -> Answer:
        if path == "/v1/models":
            return status(200, json.dumps({"object": "list", "data": [{"id": "plain"}]}))
        if path != "/v1/chat/completions":
            return status(404)
        count = body.get("max_completion_tokens", NUM_TOKENS)
        words = ["word "] * count
        texts = ["".join(words[k : k + self._pack]) for k in range(0, count, self._pack)]
        events: list[Any] = [{"choices": [{"delta": {"role": "assistant"}}]}, *map(said, texts)]
        if self._ends:
            events.append(said("", "length"))
        if body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 30, "completion_tokens": count + self._lie}
            events.append({"choices": [], "usage": usage})
        stream = "".join(f": note\r\ndata: {json.dumps(each)}\r\n\r\n" for each in events)
        stream += "data: [DONE]\r\n\r\n" if self._ends else ""
        return [HEAD, *self._pieces(stream.encode()), END]

    def _pieces(self, data: bytes) -> list[bytes]:
        cuts = sorted(self._draw.sample(range(1, len(data)), 9))
        return [chunk(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def bench_of(server: PlainServer, folder: Path, *args: str) -> BenchRun:
    file = folder / "tokenizer.json"
    file.write_text(family_tokenizer("byte-level", has_bos=False).tokenizer_json)
    async with answering_with(server) as endpoint:
        options = (*LOAD, f"--tokenizer={file}", *args)
        return await asyncio.to_thread(run_bench, endpoint.url, folder / "out", *options)


@pytest.mark.parametrize("pack", [1, 5])
async def test_a_plain_server_is_measured(tmp_path: Path, pack: int) -> None:
    run = await bench_of(PlainServer(pack=pack), tmp_path)

    assert run.exit_code in (0, 5), run.messages  # 5: this machine was too busy to trust
    assert run.result.endpoint.protocol == "chat"
    assert run.result.endpoint.model == "plain"
    assert run.stage.counts.ok == 12
    assert {each.output_tokens for each in run.requests} == {NUM_TOKENS}
    assert {each.num_events for each in run.requests} == {-(-NUM_TOKENS // pack)}


async def test_a_server_that_counts_wrongly_is_believed_and_told_of(tmp_path: Path) -> None:
    run = await bench_of(PlainServer(lie=24), tmp_path)

    assert run.stage.tokens.source == {"usage_final": 12}
    assert {each.output_tokens for each in run.requests} == {NUM_TOKENS + 24}
    assert (run.stage.tokens.mismatch_mean or 0) > 0.02
    assert "the server's counts of output tokens and the tokenizer's are 66.7 % apart" in run.report


async def test_a_server_that_never_ends_its_streams_is_no_success(tmp_path: Path) -> None:
    run = await bench_of(PlainServer(ends=False), tmp_path)

    assert run.exit_code == run.result.exit_code == 6
    assert "truncated" in run.messages
