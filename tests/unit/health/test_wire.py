from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.config.probe import Target
from tgi_cli.runtime.health.wire import DeadlinePassed, WireError, get


@contextmanager
def answering(*pieces: bytes, hangs: bool = False) -> Iterator[Target]:
    """Serve one connection with these bytes, a write each; then close it, or hold it open."""
    listener = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while b"\r\n\r\n" not in connection.recv(1 << 16):
                pass
            with contextlib.suppress(ConnectionError):  # a client that knows enough leaves early
                for piece in pieces:
                    connection.sendall(piece)
            if hangs:
                is_over.wait(30)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Target("127.0.0.1", listener.getsockname()[1])
    finally:
        is_over.set()
        thread.join()
        listener.close()


def soon() -> float:
    return time.monotonic() + 20


@given(st.binary(max_size=40), st.lists(st.integers(0, 120), max_size=6), st.integers(1, 9))
def test_a_body_is_read_whole_however_it_is_framed_and_cut(
    body: bytes, cuts: list[int], chunk_size: int
) -> None:
    chunks = [body[i : i + chunk_size] for i in range(0, len(body), chunk_size)]
    chunked = b"".join(b"%x;a=b\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    replies = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        b"HTTP/1.0 200\r\n\r\n" + body,
    ]
    for reply in replies:
        places = sorted({0, *(cut for cut in cuts if cut < len(reply)), len(reply)})
        pieces = [reply[start:end] for start, end in itertools.pairwise(places)]
        with answering(*pieces) as target:
            assert get(target, "/", soon()).body == body


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "without a reply"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "isn't an HTTP server"),
        (b"HTTP/1.1 many\r\n\r\n", "isn't an HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunks"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort", "cut off"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "headers are too long"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (5 << 20), "too long"),
    ],
)
def test_a_reply_that_cannot_be_read_is_an_error(reply: bytes, words: str) -> None:
    with answering(reply) as target, pytest.raises(WireError, match=words):
        get(target, "/", soon())


def test_a_server_that_goes_silent_is_left_at_the_deadline() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n", hangs=True) as target:
        start_s = time.monotonic()

        with pytest.raises(DeadlinePassed, match="doesn't answer in time"):
            get(target, "/", start_s + 0.05)


def test_a_server_that_drips_is_left_at_the_deadline_too() -> None:
    drips = [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 30]
    with answering(*drips, hangs=True) as target, pytest.raises(DeadlinePassed):
        get(target, "/", time.monotonic() + 0.2)
