"""The mock's routes: text in three protocols, and what a client may ask of a server before that."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from tgi_cli import __version__
from tgi_cli.errors import ListenError
from tgi_cli.runtime.bench.mock.connection import Connection, HttpRequest, whole_reply
from tgi_cli.runtime.bench.mock.counting import Counter
from tgi_cli.runtime.bench.mock.generation import Generator
from tgi_cli.runtime.config.mock import Dialect, MockOptions

_GENERATING: dict[str, tuple[Dialect, bool]] = {  # path: protocol, and whether it always streams
    "/generate": ("tgi", False),
    "/generate_stream": ("tgi", True),
    "/v1/completions": ("completions", False),
    "/v1/chat/completions": ("chat", False),
}
_BACKLOG = 4096


class MockServer:
    """Raises `StartError` if the tokenizer's file can't be used, or, from `start`, the address."""

    def __init__(self, options: MockOptions) -> None:
        self._options = options
        self._counter = Counter(options.tokenizer_file)
        self._generator = Generator(options, self._counter)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Open the port and return the URL."""
        options = self._options
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._answer, self._connections),
                options.hostname,
                options.port,
                backlog=_BACKLOG,
            )
        except OSError as exc:
            raise ListenError(
                f"Can't listen on {options.hostname}:{options.port}: {exc.strerror}.",
                hint="Choose another --port, or 0 for a free one.",
            ) from exc
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        """Close the port and all connections; the log is whole then."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            await connection.end()  # its request puts itself into the log
        self._generator.close()

    async def _answer(self, request: HttpRequest, connection: Connection) -> None:
        generating = _GENERATING.get(request.path) if request.method == "POST" else None
        if generating is not None and generating[0] in self._options.dialects:
            dialect, streams = generating
            await self._generator.answer(dialect, request, connection, streams=streams)
            return
        await self._generator.thawed()
        reply = self._fact(request)
        if reply is None:
            connection.send(whole_reply(404, b'{"error":"not found","error_type":"not_found"}'))
        elif isinstance(reply, str):
            connection.send(whole_reply(200, reply.encode(), content_type="text/plain"))
        else:
            connection.send(whole_reply(200, msgspec.json.encode(reply)))

    def _fact(self, request: HttpRequest) -> dict[str, Any] | list[Any] | str | None:
        """Return what the mock says of itself or of a text, or None for an unknown route."""
        has_tgi = "tgi" in self._options.dialects
        has_openai = self._options.dialects != ("tgi",)
        match request.method, request.path:
            case "GET", "/health":
                return ""
            case "GET", "/metrics":
                return self._metrics()
            case "GET", "/info" if has_tgi:
                return {
                    "model_id": self._options.model_id,
                    "version": __version__,
                    "router": "tgi bench mock",
                }
            case "GET", "/v1/models" if has_openai:
                model = {"id": self._options.model_id, "object": "model", "owned_by": "mock"}
                return {"object": "list", "data": [model | {"created": 0}]}
            case "POST", "/tokenize" if has_tgi:
                return self._tokens(request.body)
        return None

    def _tokens(self, body: bytes) -> list[Any]:
        fields: dict[str, Any] = {}
        with contextlib.suppress(msgspec.DecodeError, TypeError, ValueError):
            fields = dict(msgspec.json.decode(body))
        text = fields.get("inputs")
        if not isinstance(text, str):
            return []
        adds = fields.get("add_special_tokens", True)
        return list(self._counter.spans(text, add_special_tokens=bool(adds)))

    def _metrics(self) -> str:
        generator = self._generator
        values: dict[str, float] = {
            "tgi_request_count": generator.num_requests,
            "tgi_request_success": generator.num_ok,
            "tgi_request_queue_duration_sum": generator.queue_s,
            "tgi_request_queue_duration_count": generator.num_requests,
            "tgi_queue_size": generator.slots.num_waiting,
            "tgi_batch_current_size": generator.slots.num_running,
        }
        if generator.prefixes is not None:
            values["tgi_prefix_cache_hit_tokens"] = generator.prefixes.num_hit_tokens
            values["tgi_prefix_cache_query_tokens"] = generator.prefixes.num_query_tokens
        return "".join(f"{name} {value:g}\n" for name, value in values.items())


def serve_mock(options: MockOptions, listening: Callable[[str], None]) -> int:
    """Run the mock until it is told to stop; return the exit code. Raises `StartError`."""
    asyncio.run(_serve(options, listening))
    return 0


async def _serve(options: MockOptions, listening: Callable[[str], None]) -> None:
    server = MockServer(options)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    listening(await server.start())
    await stop.wait()
    await server.close()
