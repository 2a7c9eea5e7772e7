"""The router alone, over the fake engine: streamed tokens/s on one core, and what it adds in time.

The router's process has one core to itself. First the engine steps as fast as it can, so that
several tokens of a stream share a write; then at a pace at which each token is a write of its own,
and the router's CPU seconds give its capacity. The fake engine sends the time at which it sent a
token in place of the token's log-probability, so the client sees how long each was on its way;
for the last token of a request, this is the time that the router added to the request.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_NUM_STREAMS = 100
_SENT = re.compile(rb'"logprob":(-[0-9.]+)')


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks router")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1000, help="of each of 100 streams")
    args = parser.parse_args(argv)
    _measure(args.repetitions, args.tokens, step_s=0.0)
    _measure(args.repetitions, args.tokens // 5, step_s=0.02)


def _measure(repetitions: int, num_tokens: int, step_s: float) -> None:
    total = _NUM_STREAMS * num_tokens
    clock_rates, core_rates = [], []
    last_delays: list[float] = []
    cores = sorted(os.sched_getaffinity(0))
    with _router(step_s) as router:
        os.sched_setaffinity(0, set(cores[1:] or cores))  # the first core is the router's alone
        _run_streams(router.url, 2)  # warm up
        for _ in range(repetitions):
            cpu_before, start = router.cpu_s(), time.perf_counter()
            streams = _run_streams(router.url, num_tokens)
            clock_rates.append(total / (time.perf_counter() - start))
            core_rates.append(total / (router.cpu_s() - cpu_before))
            last_delays += [stream[-1] for stream in streams]
            each = sorted(delay for stream in streams for delay in stream)
    os.sched_setaffinity(0, cores)
    last_delays.sort()
    print(
        f"{_NUM_STREAMS} streams, steps of {step_s * 1e3:.0f} ms: "
        f"{statistics.median(clock_rates):,.0f} tokens/s on the clock, "
        f"{statistics.median(core_rates):,.0f} per second of the router's core; "
        f"engine to client: token p50 {each[len(each) // 2] * 1e3:.2f} ms, "
        f"p99 {each[int(len(each) * 0.99)] * 1e3:.2f} ms; "
        f"last token of a request p99 {last_delays[int(len(last_delays) * 0.99)] * 1e3:.2f} ms"
    )


@dataclass(frozen=True, slots=True)
class _Router:
    url: str
    process: subprocess.Popen[str]

    def cpu_s(self) -> float:
        """Return the CPU seconds that the router has used so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


@contextmanager
def _router(step_s: float) -> Iterator[_Router]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.router_worker", str(step_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield _Router(process.stdout.readline().strip(), process)
    finally:
        process.stdin.close()
        process.wait(30)


def _delays(chunks: list[tuple[float, bytes]]) -> Iterator[float]:
    """Yield how long each token was on its way; an event may be cut by the end of a chunk."""
    rest = b""
    for arrived_at, chunk in chunks:
        whole, mark, rest = (rest + chunk).rpartition(b"\n\n")
        for sent in _SENT.findall(whole + mark):
            yield arrived_at + float(sent)


def _run_streams(url: str, num_tokens: int) -> list[list[float]]:
    """Return, for each of the streams, the seconds that each token was on its way.

    Raw sockets and one epoll: the client must cost far less than what it measures. What arrives is
    stamped at once and read through afterwards.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    parameters = {"max_new_tokens": num_tokens, "details": True}
    body = json.dumps({"inputs": "Hello", "parameters": parameters})
    request = (
        f"POST /generate_stream HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    arrived: dict[int, list[tuple[float, bytes]]] = {}
    for _ in range(_NUM_STREAMS):
        sock = socket.create_connection((host, int(port)))
        sock.sendall(request)
        sock.setblocking(False)
        poll.register(sock, select.EPOLLIN)
        sockets[sock.fileno()] = sock
        arrived[sock.fileno()] = []
    while sockets:
        for fd, _ in poll.poll():
            chunk = os.read(fd, 1 << 20)
            if chunk:
                arrived[fd].append((time.monotonic(), chunk))
            else:
                poll.unregister(fd)
                sockets.pop(fd).close()
    streams = []
    for chunks in arrived.values():
        stream = list(_delays(chunks))
        assert len(stream) == num_tokens, (len(stream), num_tokens)
        streams.append(stream)
    return streams
