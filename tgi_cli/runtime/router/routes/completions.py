"""`/v1/completions` (spec/http-api.md section 9)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from msgspec import UNSET

from tgi_cli.runtime.router.bodies import read_body
from tgi_cli.runtime.router.completions.call import CompletionCall, Finished, read_call
from tgi_cli.runtime.router.completions.choices import ChoiceBuilder, read_echo
from tgi_cli.runtime.router.concurrency import run_together
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.headers import reply_headers, stream_headers
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.completions import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionRequest,
)
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import Prompt, Service
from tgi_cli.runtime.router.streaming import EventStream, event
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.types import FinishReason

if TYPE_CHECKING:
    from aiohttp import web


async def completions(request: web.Request) -> web.StreamResponse:
    openai.tell_errors_in_openai_form(request)
    service = request.app[SERVICE]
    call = await read_call(service, await read_body(request, CompletionRequest))
    if call.body.stream:
        headers = stream_headers(service.config.compute_type, call.num_characters)
        return await openai.send_stream(
            request, headers, partial(_open, service, call), partial(_send, service, call)
        )
    runs = [_run(service, prompt, parameters) for prompt, parameters in call.runs()]
    finished = await run_together(runs)
    generations = [generation for generation, _ in finished]
    reply = _completion(service, openai.new_id("cmpl"))
    reply.choices = [
        await _choice(service, call, index, run) for index, run in enumerate(call.chosen(finished))
    ]
    reply.usage = call.usage_of(generations)
    headers = reply_headers(
        service.config.compute_type, call.num_characters, generations, has_compute_time=False
    )
    return json_reply(reply, headers=headers)


async def _run(service: Service, prompt: Prompt, parameters: GenerateParameters) -> Finished:
    async with await service.start(prompt, parameters) as generation:
        return generation, await generation.run()


async def _choice(
    service: Service, call: CompletionCall, index: int, run: Finished
) -> CompletionChoice:
    generation, tokens = run
    echo = await read_echo(service, call, index, generation)
    text, scores = ChoiceBuilder(service, call, echo, generation).take(tokens)
    assert generation.finish_reason is not None
    reason = openai.finish_reason(generation.finish_reason, is_strict=service.config.openai_strict)
    return CompletionChoice(index, text, scores, reason)


def _completion(service: Service, completion_id: str) -> Completion:
    return Completion(
        object="text_completion",
        id=completion_id,
        created=openai.now(),
        model=service.config.model_id,
        system_fingerprint=openai.system_fingerprint(service.config),
        choices=[],
    )


@asynccontextmanager
async def _open(service: Service, call: CompletionCall) -> AsyncIterator[list[Generation]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await service.start(prompt, parameters))
            for prompt, parameters in call.runs()
        ]


async def _send(
    service: Service, call: CompletionCall, generations: list[Generation], stream: EventStream
) -> None:
    completion_id = openai.new_id("cmpl")
    is_strict = service.config.openai_strict
    builders = [
        ChoiceBuilder(service, call, await read_echo(service, call, index, generation), generation)
        for index, generation in enumerate(generations)
    ]

    def encode(index: int, tokens: list[GeneratedToken]) -> list[bytes]:
        return [event(chunk(index, token)) for token in tokens]

    def chunk(index: int, token: GeneratedToken) -> Completion | CompletionChunk:
        builder = builders[index]
        text, scores = builder.take([token])
        reason = _chunk_reason(token.finish_reason, is_strict=is_strict)
        choices = [CompletionChoice(index, text, scores, reason)]
        if token.finish_reason is not None and not is_strict:
            last = _completion(service, completion_id)
            last.choices = choices
            last.usage = call.usage_of([builder.generation])
            return last
        return CompletionChunk(
            object="text_completion",
            id=completion_id,
            created=openai.now(),
            choices=choices,
            model=service.config.model_id,
            system_fingerprint=openai.system_fingerprint(service.config),
            # OpenAI's come in a chunk of their own.
            usage=None if is_strict and call.body.includes_usage else UNSET,
        )

    runs = [(each, partial(encode, index)) for index, each in enumerate(generations)]
    await openai.send_in_turn(stream, runs)
    if call.body.includes_usage:
        last = _completion(service, completion_id)
        last.usage = call.usage_of(generations)
        await stream.write(event(last))


def _chunk_reason(reason: FinishReason | None, *, is_strict: bool) -> str | None:
    """Return TGI's own word in a chunk, which isn't that of a whole reply; "" until the last."""
    if is_strict:
        return reason and openai.finish_reason(reason, is_strict=True)
    return "" if reason is None else reason.value
