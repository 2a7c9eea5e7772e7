"""What guided requests cost, and what they cost the others in their batch.

First, in this process: how long grammars take to compile, and a mask to compute. Then on a server
of its own: the gaps between tokens of unguided streams, beside neighbours that are not guided,
guided by a hard schema that is compiled once, and guided by one that is new with every request. All
neighbours make the same number of tokens, so the batches are of one size; the kinds take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import peers
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.text.grammar import compile_grammar, make_tokenizer
from tgi_cli.runtime.types import Grammar

Json = dict[str, Any]

_KINDS = ("unguided", "guided", "compiling")
_NEIGHBOUR_TOKENS = 48


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks guided")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--streams", type=int, default=4, help="measured, unguided")
    parser.add_argument("--neighbours", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=200, help="of a measured stream")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(argv)

    _measure_grammars()
    gguf = Path(locate_model("demo").weights.files[0])
    server = peers.start("tgi-gguf", gguf.parent, gguf, "float16", args.threads)
    try:
        with server.running():
            gaps = asyncio.run(_measure_streams(server.url, args))
    finally:
        server.end()
    _report(gaps, args)


def hard_schema(nonce: int) -> Json:
    """Nested objects and lists of strings by patterns, enumerations, numbers in ranges, choices."""
    item = {
        "type": "object",
        "properties": {
            "kind": {"enum": [f"kind-{index}-{nonce}" for index in range(200)]},
            "code": {"type": "string", "pattern": "^[A-Z]{2,8}-[0-9a-f]{4,32}(-[a-z]+)*$"},
            "when": {"type": "string", "format": "date-time"},
            "size": {"type": "number", "minimum": -1e6, "maximum": 1e6},
            "note": {"anyOf": [{"type": "string", "maxLength": 500}, {"type": "null"}]},
            "next": {"anyOf": [{"$ref": "#/$defs/item"}, {"type": "null"}]},
        },
        "required": ["kind", "code", "when", "size", "note", "next"],
    }
    fields = {f"field_{index}": {"$ref": "#/$defs/item"} for index in range(40)}
    lists = {"list": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 3}}
    return {
        "$defs": {"item": item},
        "properties": {**lists, **fields},
        "required": ["list", *fields],
    }


def _measure_grammars() -> None:
    located = locate_model("demo")
    tokenizer = make_tokenizer(
        located.text.tokenizer_json, located.config.vocab_size, located.eos_token_ids
    )
    simple = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    item = (
        '{"kind": "kind-7-0", "code": "ABC-0123abcd-xyz", "when": "2020-02-29T12:00:00Z", '
        '"size": -12.5, "note": "A note with some words in it.", "next": null}'
    )
    cases = [
        ("a field", Grammar("json_schema", json.dumps(simple)), '{"name": "Ada Lovelace"}'),
        ("hard schema", Grammar("json_schema", json.dumps(hard_schema(0))), f'{{"list": [{item}, '),
        ("any object", Grammar("json_schema", '{"type": "object"}'), '{"a": [1, {"b": "c"}], "d'),
        ("regex", Grammar("regex", r"(\w+ ){3,40}\d{4}-\d\d-\d\d"), "words and more 2020-02-29"),
    ]  # fmt: skip
    print("| grammar | compile ms | first mask ms | mask µs, mean | highest |")
    print("| --- | --- | --- | --- | --- |")
    for name, grammar, text in cases:
        compile_s = _seconds(lambda grammar=grammar: compile_grammar(grammar, tokenizer))
        matcher = compile_grammar(grammar, tokenizer)
        first_s = _seconds(matcher.compute_bitmask)
        masks = []
        for token_id in tokenizer.tokenize_str(text):
            assert matcher.consume_token(token_id), (name, matcher.get_error())
            masks.append(1e6 * _seconds(matcher.compute_bitmask))
        print(
            f"| {name} | {1e3 * compile_s:.2f} | {1e3 * first_s:.2f} "
            f"| {statistics.mean(masks):.0f} | {max(masks):.0f} |"
        )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


async def _measure_streams(url: str, args: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Return the gaps of each repetition, by kind of neighbour."""
    gaps: dict[str, list[list[float]]] = {kind: [] for kind in _KINDS}
    nonces = itertools.count()
    timeout = aiohttp.ClientTimeout(total=1800)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for repetition in range(-1, args.repetitions):  # the first one warms up
            for kind in _KINDS[repetition % 3 :] + _KINDS[: repetition % 3]:
                async with _neighbours(session, url, kind, args.neighbours, nonces):
                    streams = [
                        _stream(session, url, f"{kind} {repetition} {index}", args.new_tokens)
                        for index in range(args.streams)
                    ]
                    found = list(itertools.chain(*await asyncio.gather(*streams)))
                if repetition >= 0:
                    gaps[kind].append(found)
                    print(f"repetition {repetition} {kind}: {_p99(found):.1f} ms", file=sys.stderr)
    return gaps


@asynccontextmanager
async def _neighbours(
    session: aiohttp.ClientSession, url: str, kind: str, count: int, nonces: itertools.count[int]
) -> AsyncIterator[None]:
    """Keep `count` requests of a kind going."""

    async def keep_going(index: int) -> None:
        while True:
            parameters: Json = {"max_new_tokens": _NEIGHBOUR_TOKENS, "ignore_eos": True}
            if kind != "unguided":
                schema = hard_schema(next(nonces) if kind == "compiling" else 0)
                parameters["grammar"] = {"type": "json", "value": schema}
            body = {"inputs": f"Say something in JSON, {index}:", "parameters": parameters}
            async with session.post(f"{url}/generate", json=body) as response:
                assert response.status == 200, await response.text()

    tasks = [asyncio.create_task(keep_going(index)) for index in range(count)]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def _stream(
    session: aiohttp.ClientSession, url: str, text: str, num_tokens: int
) -> list[float]:
    """Return the gaps between the tokens of one stream, in milliseconds."""
    parameters = {"max_new_tokens": num_tokens, "ignore_eos": True}
    body = {"inputs": f"A story of {text}:", "parameters": parameters}
    times = []
    async with session.post(f"{url}/generate_stream", json=body) as response:
        async for line in response.content:
            if line.startswith(b"data:"):
                times.append(time.perf_counter())
    assert len(times) == num_tokens, len(times)
    return [1e3 * (after - before) for before, after in itertools.pairwise(times)]


def _p99(gaps: list[float]) -> float:
    return statistics.quantiles(gaps, n=100)[98]


def _report(gaps: dict[str, list[list[float]]], args: argparse.Namespace) -> None:
    print(f"\nGaps between tokens of {args.streams} unguided streams beside {args.neighbours}")
    print(f"neighbours, ms; medians of {args.repetitions} repetitions, {args.threads} threads.\n")
    print("| neighbours | median gap | p99 gap | p99 / beside unguided |")
    print("| --- | --- | --- | --- |")
    base = statistics.median(map(_p99, gaps["unguided"]))
    for kind, runs in gaps.items():
        p99 = statistics.median(map(_p99, runs))
        middle = statistics.median(map(statistics.median, runs))
        print(f"| {kind} | {middle:.1f} | {p99:.1f} | {p99 / base:.2f} |")
