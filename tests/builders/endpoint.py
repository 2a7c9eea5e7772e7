"""A plain HTTP server that writes exactly the bytes it is told to, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
_NO_LINGER = struct.pack("ii", 1, 0)  # closing sends a reset


class Deed(Enum):
    """What an answer does where it doesn't write."""

    RESET = "reset"  # of the connection


RESET = Deed.RESET
Part = bytes | asyncio.Event | Deed
Answer = Sequence[Part]


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(payload: Any) -> bytes:
    """Return one server-sent event as a chunk; text goes out as it is."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return chunk(f"data: {text}\n\n".encode())


def status(code: int, body: str = "no", *headers: str) -> Answer:
    """Return an answer that isn't a stream."""
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", *headers, "", body]
    return ["\r\n".join(lines).encode()]


def said(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    """Return an event of a chat."""
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish_reason}]}


def chat(*texts: str, usage: int | None = None) -> Answer:
    """Return a whole stream of a chat, one write each; `usage` is the total at its end."""
    events: list[Any] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    events += [said(text) for text in texts]
    events.append(said("", "stop"))
    if usage is not None:
        events.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": usage}})
    return [HEAD, *map(event, events), event("[DONE]"), END]


class Endpoint:
    """A running server. `bodies` are those of the requests, decoded, in their order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.was_asked = asyncio.Event()
        self.num_connections = 0
        self.num_open = 0
        self.max_open = 0


@asynccontextmanager
async def answering_with(
    answer: Answer | Callable[[int, str, Any], Answer],
) -> AsyncIterator[Endpoint]:
    """Serve `answer`, the same to all or made from the request's number, path and body."""
    endpoint = Endpoint("")
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.num_connections += 1
        writers.add(writer)
        try:
            while await _serve_one(endpoint, answer, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint.url = f"http://127.0.0.1:{port}"
    try:
        yield endpoint
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def _serve_one(
    endpoint: Endpoint,
    answer: Answer | Callable[[int, str, Any], Answer],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    raw = await reader.readexactly(int(headers.get("content-length", 0)))
    path = head[0].split(" ")[1]
    body = json.loads(raw) if raw else None
    number = len(endpoint.bodies)
    endpoint.bodies.append(body)
    endpoint.headers.append(headers)
    endpoint.was_asked.set()
    endpoint.num_open += 1
    endpoint.max_open = max(endpoint.max_open, endpoint.num_open)
    parts = answer(number, path, body) if callable(answer) else answer
    try:
        for part in parts:
            if part is RESET:
                raw_socket = writer.get_extra_info("socket")
                raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                writer.transport.abort()
                return False
            if isinstance(part, asyncio.Event):
                await part.wait()
                continue
            assert isinstance(part, bytes)
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)  # so that each part is a read of its own
    finally:
        endpoint.num_open -= 1
    is_whole = parts[-1] == END or b"Content-Length" in parts[0] if parts else False
    return bool(is_whole)
