"""A closed-loop HTTP client for completions: everyone sends at once, tokens are timed as they come.

`tgi bench` will be the real load generator; this one is just enough to compare servers on one
batch.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True, slots=True)
class Timing:
    ttft_s: float
    e2e_s: float
    num_tokens: int

    @property
    def tpot_s(self) -> float:
        return (self.e2e_s - self.ttft_s) / max(1, self.num_tokens - 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """One run of a batch: all requests sent together."""

    wall_s: float
    timings: list[Timing]

    @property
    def tokens_per_s(self) -> float:
        return sum(timing.num_tokens for timing in self.timings) / self.wall_s


async def run_batch(url: str, model: str, prompts: list[str], max_tokens: int) -> Batch:
    """Send every prompt at once to `url`/v1/completions, greedy and streamed."""
    timeout = aiohttp.ClientTimeout(total=1800)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        start = time.perf_counter()
        timings = await asyncio.gather(
            *(_complete(session, url, model, prompt, max_tokens) for prompt in prompts)
        )
        return Batch(time.perf_counter() - start, list(timings))


async def _complete(
    session: aiohttp.ClientSession, url: str, model: str, prompt: str, max_tokens: int
) -> Timing:
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    start = time.perf_counter()
    first = None
    num_events = num_tokens = 0
    async with session.post(f"{url}/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                continue
            event = json.loads(line[5:])
            if "error" in event:
                raise RuntimeError(f"{url}: {event['error']}")
            if event.get("choices"):
                num_events += 1
                first = first or time.perf_counter()
            if event.get("usage"):
                num_tokens = event["usage"]["completion_tokens"]
    end = time.perf_counter()
    return Timing((first or end) - start, end - start, num_tokens or num_events)
