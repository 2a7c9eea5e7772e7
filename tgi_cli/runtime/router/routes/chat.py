"""`/v1/chat/completions` and `/chat_tokenize` (spec/http-api.md sections 10, 11 and 13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from tgi_cli.runtime.router.bodies import read_body
from tgi_cli.runtime.router.chat.call import ChatCall, read_call
from tgi_cli.runtime.router.chat.events import ChoiceEvents, Chunks
from tgi_cli.runtime.router.chat.reply import finish
from tgi_cli.runtime.router.chat.run import ChatRun
from tgi_cli.runtime.router.concurrency import run_together
from tgi_cli.runtime.router.headers import reply_headers, stream_headers
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.chat import ChatCompletion, ChatRequest
from tgi_cli.runtime.router.service import Service
from tgi_cli.runtime.router.streaming import EventStream

if TYPE_CHECKING:
    from aiohttp import web


async def chat_completions(request: web.Request) -> web.StreamResponse:
    openai.tell_errors_in_openai_form(request)
    service = request.app[SERVICE]
    call = await _read(service, await read_body(request, ChatRequest))
    if call.body.stream:
        headers = stream_headers(service.config.compute_type, call.num_characters)
        return await openai.send_stream(
            request, headers, partial(_open, service, call), partial(_send, service, call)
        )
    finished = await run_together([finish(ChatRun(service, call, i)) for i in range(call.n)])
    generations = [generation for _, generation in finished]
    reply = ChatCompletion(
        object="chat.completion",
        id=openai.new_id("chatcmpl"),
        created=openai.now(),
        model=call.shown_model,
        system_fingerprint=openai.system_fingerprint(service.config),
        choices=[choice for choice, _ in finished],
        usage=openai.usage_of(generations, runs_per_prompt=call.n),
    )
    headers = reply_headers(service.config.compute_type, call.num_characters, generations)
    return json_reply(reply, headers=headers)


async def chat_tokenize(request: web.Request) -> web.Response:
    """Show the prompt that a chat would have, and its tokens; none are added to it."""
    service = request.app[SERVICE]
    call = await _read(service, await read_body(request, ChatRequest))
    prompt = call.prompt
    encode = (
        partial(service.tokenizer.encode_with_offsets, prompt.text, add_special_tokens=False)
        if prompt.marked is None
        else partial(service.marked_encoder.encode_with_offsets, prompt.marked)
    )

    def reply() -> dict[str, object]:
        return {"tokenize_response": encode(), "templated_text": prompt.text}

    return json_reply(await service.show_tokens(prompt.text, reply))


async def plain_chat(service: Service, body: ChatRequest) -> str:
    """Return the text of one generation as it is, a call in the form that was asked for too."""
    body = msgspec.structs.replace(body, stream=False, n=None)
    call = await _call(service, body)
    async with ChatRun(service, call, 0) as run:
        await run.generation.run()
    return run.generation.text


async def _read(service: Service, body: ChatRequest) -> ChatCall:
    service.metrics.count("tgi_request_count")
    return await _call(service, body)


async def _call(service: Service, body: ChatRequest) -> ChatCall:
    n = openai.check_n(body.n, service.config.limits)
    return await read_call(service, body, openai.sampling_parameters(body), n)


@asynccontextmanager
async def _open(service: Service, call: ChatCall) -> AsyncIterator[list[ChatRun]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(ChatRun(service, call, index))
            for index in range(call.n)
        ]


async def _send(service: Service, call: ChatCall, runs: list[ChatRun], stream: EventStream) -> None:
    chunks = Chunks(call, openai.system_fingerprint(service.config))
    choices = [ChoiceEvents(chunks, run) for run in runs]
    if call.tools is None:
        await openai.send_in_turn(stream, [(c.run.generation, c.encode) for c in choices])
    else:
        async with AsyncExitStack() as stack:
            events = [
                await stack.enter_async_context(aclosing(choice.events())) for choice in choices
            ]
            await openai.send_interleaved(stream, events)
    if call.body.includes_usage:
        generations = [run.generation for run in runs]
        usage = openai.usage_of(generations, runs_per_prompt=call.n)
        await stream.write(chunks.chunk([], usage))
