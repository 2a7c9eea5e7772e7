"""The router alone, over the fake engine: streamed tokens/s on one core, and what it adds in time.

The router's process has one core to itself. First the engine steps as fast as it can, so that
several tokens of a stream share a write; then at a pace at which each token is a write of its own,
and the router's CPU seconds give its capacity. The fake engine sends the time at which it sent a
token in place of the token's log-probability, so the client sees how long each was on its way;
for the last token of a request, this is the time that the router added to the request.

Last, a crowd: 1,000 open streams of 20 tokens/s each, and beside them one short request after
another, whose first byte is waited for.
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
_CROWD = 1000
_CROWD_STEP_S = 0.05  # so that the crowd's streams are 20,000 tokens/s together
_CROWD_TOKENS = 400
_NUM_PROBES = 100
_SENT = re.compile(rb'"logprob":(-[0-9.]+)')


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks router")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1000, help="of each of 100 streams")
    args = parser.parse_args(argv)
    _measure(args.repetitions, args.tokens, step_s=0.0)
    _measure(args.repetitions, args.tokens // 5, step_s=0.02)
    _measure_crowd()


def _measure(repetitions: int, num_tokens: int, step_s: float) -> None:
    total = _NUM_STREAMS * num_tokens
    clock_rates, core_rates = [], []
    last_delays: list[float] = []
    cores = sorted(os.sched_getaffinity(0))
    with _router(step_s) as router:
        os.sched_setaffinity(0, set(cores[1:] or cores))  # the first core is the router's alone
        _Streams(router.url, _NUM_STREAMS, 2).delays()  # warm up
        for _ in range(repetitions):
            cpu_before, start = router.cpu_s(), time.perf_counter()
            streams = _Streams(router.url, _NUM_STREAMS, num_tokens).delays()
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


def _measure_crowd() -> None:
    cores = sorted(os.sched_getaffinity(0))
    with _router(_CROWD_STEP_S) as router:
        os.sched_setaffinity(0, set(cores[1:] or cores))
        _Streams(router.url, _NUM_STREAMS, 2).delays()  # warm up
        crowd = _Streams(router.url, _CROWD, _CROWD_TOKENS)
        crowd.read_until_all_began()
        cpu_before, start = router.cpu_s(), time.perf_counter()
        first_bytes = sorted(_first_byte_s(router.url) for _ in range(_NUM_PROBES))
        share = (router.cpu_s() - cpu_before) / (time.perf_counter() - start)
        rss_bytes = router.rss_bytes()
        crowd.delays()
    os.sched_setaffinity(0, cores)
    print(
        f"{_CROWD} streams of {1 / _CROWD_STEP_S:.0f} tokens/s: router {rss_bytes / 1e6:.0f} MB, "
        f"{share:.0%} of its core; first byte of one more request, of which a step's wait is "
        f"{_CROWD_STEP_S * 1e3:.0f} ms: p50 {first_bytes[_NUM_PROBES // 2] * 1e3:.0f} ms, "
        f"p99 {first_bytes[int(_NUM_PROBES * 0.99)] * 1e3:.0f} ms"
    )


@dataclass(frozen=True, slots=True)
class _Router:
    url: str
    process: subprocess.Popen[str]

    def cpu_s(self) -> float:
        """Return the CPU seconds that the router has used so far."""
        return float(self._ask("cpu"))

    def rss_bytes(self) -> int:
        """Return how much memory the router has resident."""
        return int(self._ask("rss"))

    def _ask(self, what: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        return self.process.stdout.readline()


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


def _request(url: str, num_tokens: int) -> tuple[tuple[str, int], bytes]:
    """Return the address and the bytes of a streaming request."""
    host, _, port = url.removeprefix("http://").partition(":")
    parameters = {"max_new_tokens": num_tokens, "details": True}
    body = json.dumps({"inputs": "Hello", "parameters": parameters})
    request = (
        f"POST /generate_stream HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )
    return (host, int(port)), request.encode()


def _first_byte_s(url: str) -> float:
    """Return the seconds from a request of one token to the first byte of its first event."""
    address, request = _request(url, 1)
    with socket.create_connection(address) as sock:
        start = time.perf_counter()
        sock.sendall(request)
        received = b""
        while b"data:" not in received:
            received += sock.recv(1 << 16)
        return time.perf_counter() - start


class _Streams:
    """Streams that run side by side.

    Raw sockets and one epoll: the client must cost far less than what it measures. What arrives is
    stamped at once and read through afterwards.
    """

    def __init__(self, url: str, num_streams: int, num_tokens: int) -> None:
        address, request = _request(url, num_tokens)
        self._num_tokens = num_tokens
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._arrived: dict[int, list[tuple[float, bytes]]] = {}
        for _ in range(num_streams):
            sock = socket.create_connection(address)
            sock.sendall(request)
            sock.setblocking(False)
            self._poll.register(sock, select.EPOLLIN)
            self._sockets[sock.fileno()] = sock
            self._arrived[sock.fileno()] = []

    def read_until_all_began(self) -> None:
        while not all(len(chunks) > 1 for chunks in self._arrived.values()):  # more than headers
            self._read()

    def delays(self) -> list[list[float]]:
        """Return, for each of the streams, the seconds that each token was on its way."""
        while self._sockets:
            self._read()
        streams = [list(_delays(chunks)) for chunks in self._arrived.values()]
        for stream in streams:
            assert len(stream) == self._num_tokens, (len(stream), self._num_tokens)
        return streams

    def _read(self) -> None:
        for fd, _ in self._poll.poll():
            chunk = os.read(fd, 1 << 20)
            if chunk:
                self._arrived[fd].append((time.monotonic(), chunk))
            else:
                self._poll.unregister(fd)
                self._sockets.pop(fd).close()
