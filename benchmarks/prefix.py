"""Time to the first token of a chat's second turn, with the prefix cache and without.

The first turn has a prompt of `--prompt-tokens` and an answer of `--new-tokens`; the second
sends both again with a short question behind. Every repetition is a chat of its own, held with
both servers in turn, and the order alternates; the one that isn't measured is held still.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from tokenizers import Tokenizer

from benchmarks import peers
from benchmarks.export_demo import export_demo
from benchmarks.prompts import make_prompts
from tgi_cli.runtime.hub.locate import locate_model

_QUESTION = "Say that again in one short sentence, please."
_SERVERS = ("tgi", "tgi-uncached")
Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    ttft_s: float


@dataclass(slots=True)
class Times:
    first_turn_s: list[float] = field(default_factory=list)  # to the first token
    second_turn_s: list[float] = field(default_factory=list)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks prefix")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--prompt-tokens", type=int, default=1000)
    parser.add_argument("--new-tokens", type=int, default=24)
    args = parser.parse_args(argv)
    num_cores = len(os.sched_getaffinity(0))
    times = {name: Times() for name in _SERVERS}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        export_demo(folder)
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        prompts = make_prompts(tokenizer, args.repetitions + 1, args.prompt_tokens)
        gguf = Path(locate_model("demo").weights.files[0])
        servers = []
        for each in _SERVERS:
            servers.append(peers.start(each, folder, gguf, "float32", num_cores))
            stack.callback(servers[-1].end)
        for repetition, prompt in enumerate(prompts):
            for server in servers[:: 1 if repetition % 2 else -1]:
                with server.running():
                    first, second = asyncio.run(_chat(server.url, prompt, args.new_tokens))
                if repetition:  # the first is a warm-up
                    times[server.name].first_turn_s.append(first.ttft_s)
                    times[server.name].second_turn_s.append(second.ttft_s)
    _report(times, args)


async def _chat(url: str, prompt: str, num_new_tokens: int) -> tuple[Reply, Reply]:
    """Hold both turns of a chat."""
    async with aiohttp.ClientSession() as session:
        messages = [{"role": "user", "content": prompt}]
        first = await _say(session, url, messages, num_new_tokens)
        messages.append({"role": "assistant", "content": first.text})
        messages.append({"role": "user", "content": _QUESTION})
        return first, await _say(session, url, messages, num_new_tokens)


async def _say(
    session: aiohttp.ClientSession, url: str, messages: list[Message], num_new_tokens: int
) -> Reply:
    body = {
        "model": "tgi",
        "messages": messages,
        "max_tokens": num_new_tokens,
        "temperature": 0,
        "stream": True,
    }
    pieces: list[str] = []
    start, first = time.perf_counter(), 0.0
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                continue
            event = json.loads(line[5:])
            if "error" in event:
                raise RuntimeError(f"{url}: {event['error']}")
            first = first or time.perf_counter()
            pieces += [choice["delta"].get("content") or "" for choice in event["choices"]]
    return Reply("".join(pieces), first - start)


def _report(times: dict[str, Times], args: argparse.Namespace) -> None:
    print(f"\nChats of {args.prompt_tokens} tokens and {args.new_tokens} more; medians of", end=" ")
    print(f"{args.repetitions}, time to the first token.\n")
    print("| server | first turn, ms | second turn, ms |")
    print("| --- | --- | --- |")
    for name, each in times.items():
        first, second = (
            statistics.median(values) * 1e3 for values in (each.first_turn_s, each.second_turn_s)
        )
        print(f"| {name} | {first:.0f} | {second:.0f} |")
    cached, uncached = (times[name].second_turn_s for name in _SERVERS)
    ratios = sorted(slow / fast for slow, fast in zip(uncached, cached, strict=True))
    print(f"\nsecond turn, uncached / cached: median {statistics.median(ratios):.1f}", end=" ")
    print(f"({ratios[0]:.1f} to {ratios[-1]:.1f})")
