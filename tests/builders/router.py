"""A whole router on loopback over the fake engine in a thread, and a client to try it with."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from tests.builders.tokenizers import END, byte_level_tokenizer
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.config.resolved import RequestLimits, RouterConfig
from tgi_cli.runtime.ipc.channel import EngineChannel
from tgi_cli.runtime.ipc.client import EngineClient, OpenRequest
from tgi_cli.runtime.ipc.fake_engine import FakeEngine, FakeScript
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.router.server import RouterServer
from tgi_cli.runtime.text.chat_template import ChatTemplate
from tgi_cli.runtime.text.grammar_checker import GrammarChecker
from tgi_cli.runtime.text.tokenizer import Tokenizer

ASSETS = byte_level_tokenizer()
TOKENIZER = Tokenizer(ASSETS)
END_ID = TOKENIZER.encode(END, add_special_tokens=False)[0]
Json = dict[str, Any]


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False))


def script_for(text: str, *, end: bool = False, prompt: str = "x", **options: Any) -> FakeScript:
    """Make the fake say `text` after `prompt`, again and again, or once and then end."""
    ids = ids_of(text)
    shift = len(ids_of(prompt)) % len(ids)  # the fake starts at the prompt's length
    ids = (*ids[len(ids) - shift :], *ids[: len(ids) - shift])
    if end:
        options |= {"eos_token_id": END_ID, "eos_after": len(ids)}
    return FakeScript(token_ids=ids, **options)


def answering(*texts: str, **options: Any) -> FakeScript:
    """Make the fake answer the first request with the first text and the end, and so on."""
    return FakeScript(replies=tuple(map(ids_of, texts)), eos_token_id=END_ID, **options)


@dataclass(frozen=True)
class Client:
    """Talks to one router."""

    url: str
    session: aiohttp.ClientSession
    router: RouterServer
    engine: EngineClient

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, Any, Any]:
        """Return status, headers, and the body: decoded if it is JSON, else text."""
        if isinstance(body, bytes):
            headers = {"content-type": "application/json", **options.pop("headers", {})}
            request = self.session.post(self.url + path, data=body, headers=headers, **options)
        else:
            request = self.session.post(self.url + path, json=body, **options)
        async with request as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return response.status, response.headers, json.loads(text) if is_json else text

    async def get(self, path: str, **options: Any) -> tuple[int, Any, str]:
        async with self.session.get(self.url + path, **options) as response:
            return response.status, response.headers, await response.text()

    async def stream(self, path: str, body: Json) -> list[Any]:
        """Return the events of a stream, decoded; the end mark as a string."""
        async with self.session.post(self.url + path, json=body) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            raw = (await response.read()).decode()
        frames = raw.split("\n\n")
        assert frames.pop() == "", "the last event isn't whole"
        assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
        events = [frame.removeprefix("data: ") for frame in frames]
        return [event if event == "[DONE]" else json.loads(event) for event in events]

    def record_requests(self) -> list[NewRequest]:
        """Return a list to which every request that the engine gets is added."""
        requests: list[NewRequest] = []
        submit = self.engine.submit

        def submit_recorded(request: NewRequest) -> OpenRequest:
            requests.append(request)
            return submit(request)

        self.engine.submit = submit_recorded  # type: ignore[method-assign]
        return requests

    async def metric(self, series: str) -> float:
        _, _, text = await self.get("/metrics")
        values = [line.rpartition(" ") for line in text.splitlines()]
        return next(float(value) for name, _, value in values if name == series)


@asynccontextmanager
async def serving(
    script: FakeScript | None = None,
    *,
    limits: Json | None = None,
    template: str | None = None,
    assets: TextAssets = ASSETS,
    **config: Any,
) -> AsyncIterator[Client]:
    ours, theirs = socket.socketpair()
    fake = FakeEngine(EngineChannel(theirs), script or FakeScript())
    thread = threading.Thread(target=fake.serve)
    thread.start()
    engine = await EngineClient.connect(ours)
    engine.start(b"{}")
    await engine.wait_ready()
    settings: Json = {
        "model_id": "tiny",
        "hostname": "127.0.0.1",
        "port": 0,
        "limits": RequestLimits(
            **{"max_input_tokens": 90, "max_total_tokens": 100, **(limits or {})}
        ),
        **config,
    }
    if template is not None:
        templates = {"default": template} if template else {}
        assets = msgspec.structs.replace(assets, chat_templates=templates)
    chat_template = ChatTemplate(assets)
    checker = GrammarChecker(assets.tokenizer_json, TOKENIZER.vocab_size, (END_ID,))
    tokenizer = TOKENIZER if assets.tokenizer_json == ASSETS.tokenizer_json else Tokenizer(assets)
    router = RouterServer(RouterConfig(**settings), engine, tokenizer, chat_template, checker)
    await router.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(router.url, session, router, engine)
    finally:
        await router.close()
        await chat_template.close()
        await checker.close()
        engine.shut_down()
        await engine.closed.wait()
        thread.join()
