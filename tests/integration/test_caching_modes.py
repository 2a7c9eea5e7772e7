"""Two servers of the demo model that schedule as differently as can be, and say the same."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.builders.served import served

SYSTEM = "You are a patient teacher of geography. Answer in one short sentence. " * 6
QUESTIONS = ("Where is Lake Baikal?", "What is the capital of Peru?", "How long is the Nile?")


def chat(url: str, messages: list[dict[str, str]]) -> str:
    body = {"messages": messages, "max_tokens": 14, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        reply: dict[str, Any] = json.load(response)
    text: str = reply["choices"][0]["message"]["content"]
    return text


def two_turns(url: str, question: str) -> list[str]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    first = chat(url, messages)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "Why?"}]
    return [first, chat(url, messages)]


def metric(url: str, series: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{series} "))


def test_chats_say_the_same_with_cache_and_chunks_as_without_either() -> None:
    with (
        served("--model-id", "demo") as usual,
        served("--model-id", "demo", PREFIX_CACHING="0", PREFILL_CHUNKING="0") as plain,
    ):
        urls = [usual.wait_ready(), plain.wait_ready()]
        replies = []
        with ThreadPoolExecutor() as pool:
            for url in urls:
                replies.append(
                    list(pool.map(lambda text, url=url: two_turns(url, text), QUESTIONS))
                )
        hits, queries = (
            [metric(url, f"tgi_prefix_cache_{what}_tokens") for url in urls]
            for what in ("hit", "query")
        )
        num_used = [metric(url, "tgi_kv_cache_blocks_used") for url in urls]

    assert replies[0] == replies[1]
    assert hits[0] > 100  # each second turn finds its first at least
    assert queries[0] > hits[0]
    assert hits[1] == queries[1] == 0
    assert num_used == [0, 0]
