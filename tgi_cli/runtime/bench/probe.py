"""Before any load: is it there, what does it speak, which fields does it take?

One short request for each question. A field that is answered with 4xx is left out from then on.
Spec: bench.md sections 4, 5 and 8.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import msgspec

from tgi_cli.errors import UnreachableError
from tgi_cli.runtime.bench.exchange import Exchange, Exchanges
from tgi_cli.runtime.bench.failures import failure_of
from tgi_cli.runtime.bench.messages import Timeouts
from tgi_cli.runtime.bench.protocols import PROTOCOLS, BodyOptions, ProtocolName
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.result import Endpoint
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.bench.transport import Transport, TransportOptions, tls_context

_PROMPT = "Count from one to ten."
_OUTPUT_TOKENS = 6
_ENDLESS_TOKENS = 24  # the length was not understood
_LOOK_S = 0.05
_TIMEOUT_S = 10.0  # of the questions that need no generation
_MAX_INFO_BYTES = 1 << 20


class Probe:
    """Questions to one endpoint. Use it as an asynchronous context manager."""

    def __init__(
        self,
        url: str,
        transport: TransportOptions,
        body: BodyOptions,
        timeouts: Timeouts,
        path: str | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._transport = transport
        self._body = body
        self._timeouts = timeouts
        self._path = path
        self._protocol: ProtocolName = "tgi"
        self.itl_s: float | None = None  # between two tokens, as the first reply had it
        self._watches: list[asyncio.Task[None]] = []
        self._transports: list[Transport] = []

    async def __aenter__(self) -> Probe:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls_context(self._transport)),
            headers=self._transport.headers,
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for transport in self._transports:
            await transport.close()
        await self._session.close()

    @property
    def body(self) -> BodyOptions:
        """What bodies say from now on."""
        return self._body

    def route(self) -> str:
        """Return the URL that requests go to."""
        return self._url + (self._path or PROTOCOLS[self._protocol](self._body).path)

    async def find(self, protocol: ProtocolName | None, *, forces_length: bool) -> Endpoint:
        """Find out all of it; `protocol` None asks the server.

        Raises:
            UnreachableError: nobody answers, or the first generation fails.
        """
        info, models = await self._ask("/info"), await self._ask("/v1/models")
        if info is None and models is None:
            await self._must_listen()
        served = _model_names(models)
        self._protocol = protocol or _spoken(info, models)
        model = self._body.model or next(iter(served), None) or (info or {}).get("model_id")
        self._set(model=model)
        await self._must_generate()
        capabilities = await self._capabilities(forces_length)
        return Endpoint(
            url=self._url,
            protocol=self._protocol,
            model=model,
            server={"info": info, "version": (info or {}).get("version")},
            capabilities=capabilities,
        )

    async def num_input_tokens(self, prompt: PromptInput) -> int | None:
        """Return how many tokens the server counts in an input; None if it doesn't say."""
        return (await self._generate(prompt)).record.input_tokens

    async def tokenize(self, text: str) -> list[int] | None:
        """Return the ids that the server's `/tokenize` gives; None if it has none."""
        for body in ({"inputs": text}, {"model": self._body.model, "prompt": text}):
            try:
                async with self._session.post(f"{self._url}/tokenize", json=body) as response:
                    if response.status == 200:
                        return _token_ids(await response.json(content_type=None))
            except (aiohttp.ClientError, TimeoutError, ValueError):
                return None
        return None

    async def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text. Raises `UnreachableError` if the server refuses one."""
        found = await asyncio.gather(*(self.tokenize(text) for text in texts))
        if None in found:
            raise UnreachableError("The server's /tokenize has failed.")
        return [ids for ids in found if ids is not None]

    def _set(self, **fields: Any) -> None:
        self._body = msgspec.structs.replace(self._body, **fields)

    async def _ask(self, path: str) -> dict[str, Any] | None:
        try:
            async with self._session.get(self._url + path) as response:
                if response.status != 200:
                    return None
                found = msgspec.json.decode(await response.content.read(_MAX_INFO_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
            return None
        return found if isinstance(found, dict) else None

    async def _must_listen(self) -> None:
        try:
            async with self._session.get(f"{self._url}/health"):
                pass
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            failure, message = failure_of(exc)
            raise UnreachableError(
                f"Nothing answers at {self._url} ({failure}): {message}",
                hint="Is the server up? `tgi health --wait 5m URL` waits until it is.",
            ) from exc

    async def _must_generate(self) -> None:
        """Ask for a few tokens with no field that may be unknown, but the length's two names."""
        self._set(include_usage=False, continuous_usage_stats=False)
        exchange = await self._generate()
        if self._protocol == "chat" and not _took_the_length(exchange):
            self._set(max_completion_tokens=False)
            exchange = await self._generate()
        record = exchange.record
        if record.failure not in (None, "cancelled"):
            raise UnreachableError(
                f"A first request to {self.route()} failed ({record.failure}): {record.message}",
                hint="--protocol, --path, --model and --api-key say what to ask, and how.",
            )
        if record.first is not None and record.last is not None and record.num_events > 1:
            self.itl_s = (record.last - record.first) / 1e9 / (record.num_events - 1)

    async def _capabilities(self, forces_length: bool) -> dict[str, bool]:
        found: dict[str, bool] = {}
        if self._protocol != "tgi" and self._body.streams:
            found["include_usage"] = await self._takes("include_usage")
            if found["include_usage"]:
                found["continuous_usage_stats"] = await self._takes("continuous_usage_stats")
        if forces_length:
            found["ignore_eos"] = await self._takes("ignore_eos")
            found["min_tokens"] = await self._takes("min_tokens")
        if self._protocol == "chat":
            found["max_completion_tokens"] = self._body.max_completion_tokens
        if self._protocol == "completions":
            exchange = await self._generate(PromptInput(token_ids=[11, 12, 13]))
            found["token_ids"] = exchange.record.is_ok
        return found

    async def _takes(self, field: str) -> bool:
        """Try a field; it stays on if the server takes it."""
        before = self._body
        self._set(**{field: True})
        exchange = await self._generate()
        is_taken = exchange.record.is_ok
        if field == "include_usage":
            is_taken &= exchange.reading.usage >= 0
        elif field == "continuous_usage_stats":
            is_taken &= len(exchange.usage) > 0 and exchange.usage[0] >= 0
        if not is_taken:
            self._body = before
        return is_taken

    async def _generate(self, prompt: PromptInput | None = None) -> Exchange:
        protocol = PROTOCOLS[self._protocol](self._body)
        clock: Callable[[], int] = time.perf_counter_ns
        options = msgspec.structs.replace(self._transport, url=self.route())
        transport = Transport(options, clock)
        self._transports.append(transport)
        exchanges = Exchanges(
            transport, protocol, self._timeouts, clock, streams=self._body.streams
        )
        watches = (exchanges.watch_deadlines(), _stop_the_endless(exchanges))
        self._watches += [asyncio.create_task(watch) for watch in watches]
        body = protocol.body(prompt or PromptInput(text=_PROMPT), _OUTPUT_TOKENS)
        record = RequestRecord(index=0, phase="warmup", sched=clock())
        return await exchanges.run(body, record)


async def _stop_the_endless(exchanges: Exchanges) -> None:
    """Hang up on replies that go on far beyond what was asked for. Runs for ever."""
    while True:
        await asyncio.sleep(_LOOK_S)
        for exchange in tuple(exchanges.open):
            if sum(exchange.num_events) > _ENDLESS_TOKENS:
                exchange.hang_up("cancelled")


def _took_the_length(exchange: Exchange) -> bool:
    """Whether the server knew the field of the length; some don't, and write without end."""
    if exchange.record.status in (400, 422):
        return False
    return max(exchange.record.num_events, exchange.reading.usage) <= _OUTPUT_TOKENS


def _spoken(info: dict[str, Any] | None, models: dict[str, Any] | None) -> ProtocolName:
    if info is not None and "model_id" in info:
        return "tgi"
    if models is not None:
        return "chat"
    raise UnreachableError(
        "Neither /info nor /v1/models tells which protocol is spoken there.",
        hint="Say it: --protocol tgi, completions or chat.",
    )


def _model_names(models: dict[str, Any] | None) -> list[str]:
    data = (models or {}).get("data")
    entries = data if isinstance(data, list) else []
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]


def _token_ids(answer: Any) -> list[int] | None:
    if isinstance(answer, dict):
        answer = answer.get("tokens")
    if not isinstance(answer, list):
        return None
    ids = [entry.get("id") if isinstance(entry, dict) else entry for entry in answer]
    found = [token_id for token_id in ids if isinstance(token_id, int)]
    return found if len(found) == len(ids) else None
