"""A client that reads more slowly than the model writes: spec/scheduling.md section 10.

Nobody waits for it: the engine goes on. What it hasn't taken waits as token ids, which are bounded
by the request's own length, and as one socket buffer, so that there is no pile to be limited.
"""

from __future__ import annotations

import asyncio
import json
import socket

from tests.builders.router import script_for, serving
from tests.contract.test_load import until

NUM_TOKENS = 60_000  # 7 MB of events: more than the system's socket buffers take
LIMITS = {"max_input_tokens": 9, "max_total_tokens": NUM_TOKENS + 9}


async def test_a_stream_that_nobody_reads_holds_no_more_than_a_socket_buffer_and_loses_nothing():
    body = json.dumps({"inputs": "x", "parameters": {"max_new_tokens": NUM_TOKENS}}).encode()
    async with serving(script_for("abcdefg"), limits=LIMITS) as client:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", int(client.url.rpartition(":")[2])))
            head = "POST /generate_stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body)

            async def has_begun() -> bool:
                return bool(client.engine.open_requests)

            async def is_generated() -> bool:
                return not client.engine.open_requests

            await until(has_begun)
            await until(is_generated)
            [connection] = [
                each
                for each in client.router._runner.server.connections
                if each.transport.get_extra_info("peername") == sock.getsockname()
            ]
            buffered = connection.transport.get_write_buffer_size()
            received = await read_all(sock)

    assert 0 < buffered < 1 << 20
    events = received.decode().split("data:")[1:]
    assert len(events) == NUM_TOKENS
    assert '"generated_text":"' in events[-1]


async def read_all(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    pieces = []
    while piece := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)
