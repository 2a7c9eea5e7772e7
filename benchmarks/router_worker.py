"""The router's process for `benchmarks.router`: on one core, with the demo model's tokenizer.

Prints its URL, then for each line on stdin its CPU seconds (`cpu`) or its resident bytes (`rss`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

import uvloop

from tgi_cli.runtime.config.resolved import RequestLimits, RouterConfig
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.ipc.client import EngineClient
from tgi_cli.runtime.router.server import RouterServer
from tgi_cli.runtime.text.chat_template import ChatTemplate
from tgi_cli.runtime.text.grammar_checker import GrammarChecker
from tgi_cli.runtime.text.tokenizer import Tokenizer


async def serve(step_s: str) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:] or cores))  # for the engine, which inherits it
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    arguments = ["--channel-fd", str(fd), "--step-s", step_s, "--clock-logprobs"]
    await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tgi_cli.runtime.ipc.fake_engine", *arguments, pass_fds=[fd]
    )
    theirs.close()
    os.sched_setaffinity(0, {cores[0]})
    text = locate_model("demo").text
    engine = await EngineClient.connect(ours)
    engine.start(b"{}")
    await engine.wait_ready()
    config = RouterConfig(
        model_id="demo",
        hostname="127.0.0.1",
        port=0,
        limits=RequestLimits(
            max_concurrent_requests=2000, max_input_tokens=8000, max_total_tokens=8192
        ),
    )
    tokenizer = Tokenizer(text)
    checker = GrammarChecker(text.tokenizer_json, tokenizer.vocab_size, ())
    router = RouterServer(config, engine, tokenizer, ChatTemplate(text), checker)
    await router.start()
    print(router.url, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(time.process_time() if line == "cpu\n" else _rss_bytes(), flush=True)
    await router.close()
    engine.shut_down()


def _rss_bytes() -> int:
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return num_pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
