"""`/v1/completions` (spec/http-api.md section 9)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from tgi_cli.errors import RequestError, SuffixNotSupported, TooManyPrompts
from tgi_cli.runtime.router.bodies import BodyError, read_body
from tgi_cli.runtime.router.concurrency import run_together
from tgi_cli.runtime.router.headers import reply_headers, stream_headers
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.completions import (
    Completion,
    CompletionChoice,
    CompletionRequest,
)
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import GeneratedToken, Generation, Prompt, Service
from tgi_cli.runtime.router.streaming import DONE, EventStream, event, send_events
from tgi_cli.runtime.router.validation import unsupported
from tgi_cli.runtime.types import FinishReason

if TYPE_CHECKING:
    from aiohttp import web

_EMPTY_PROMPT = (
    "Failed to deserialize the JSON body into the target type: prompt: "
    "Empty array detected. Do not use an empty array for the prompt."
)


async def completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, CompletionRequest)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not prompts:
        raise BodyError(422, _EMPTY_PROMPT)
    service.metrics.count("tgi_request_count")
    if body.suffix is not None:
        raise SuffixNotSupported
    if len(prompts) > service.config.limits.max_client_batch_size:
        raise TooManyPrompts(service.config.limits.max_client_batch_size)
    parameters = _parameters(body)
    num_characters = sum(map(len, prompts))
    if body.stream:
        headers = stream_headers(service.config.compute_type, num_characters)
        produce = partial(_send, service, prompts, parameters)
        return await send_events(request, headers, produce, _error_frames)
    generations = await run_together([_run(service, prompt, parameters) for prompt in prompts])
    reply = _completion(service)
    reply.choices = [
        CompletionChoice(index, generation.text, None, openai.finish_reason(_reason(generation)))
        for index, generation in enumerate(generations)
    ]
    reply.usage = openai.usage_of(generations)
    headers = reply_headers(
        service.config.compute_type, num_characters, generations, has_compute_time=False
    )
    return json_reply(reply, headers=headers)


def _parameters(body: CompletionRequest) -> GenerateParameters:
    if body.echo:
        raise unsupported("echo")
    if body.logprobs is not None and body.logprobs is not False:
        raise unsupported("logprobs")
    parameters = openai.sampling_parameters(body)
    return msgspec.structs.replace(parameters, max_new_tokens=body.max_tokens)


def _completion(service: Service, completion_id: str | None = None) -> Completion:
    return Completion(
        object="text_completion",
        id=completion_id or openai.new_id("cmpl"),
        created=openai.now(),
        model=service.config.model_id,
        system_fingerprint=openai.SYSTEM_FINGERPRINT,
        choices=[],
    )


def _reason(generation: Generation) -> FinishReason:
    assert generation.finish_reason is not None
    return generation.finish_reason


async def _run(service: Service, prompt: str, parameters: GenerateParameters) -> Generation:
    generation = await service.start(Prompt(prompt), parameters)
    async with generation:
        await generation.run()
        return generation


def _error_frames(error: RequestError) -> bytes:
    return openai.error_event(error) + DONE


async def _send(
    service: Service, prompts: list[str], parameters: GenerateParameters, stream: EventStream
) -> None:
    """Send the prompts' chunks, one event each in turn, then the end mark."""
    completion_id = openai.new_id("cmpl")
    async with AsyncExitStack() as stack:
        generations = []
        for text in prompts:
            generation = await service.start(Prompt(text, is_stream=True), parameters)
            generations.append(await stack.enter_async_context(generation))
        encoders = [
            partial(_encode, service, index, generation, completion_id)
            for index, generation in enumerate(generations)
        ]
        if len(generations) == 1:
            await generations[0].stream_to(stream, lambda tokens: b"".join(encoders[0](tokens)))
        else:
            await _send_in_turn(stream, list(zip(generations, encoders, strict=True)))
    await stream.write(DONE)


Encoder = Callable[[list[GeneratedToken]], list[bytes]]


def _encode(
    service: Service,
    index: int,
    generation: Generation,
    completion_id: str,
    tokens: list[GeneratedToken],
) -> list[bytes]:
    return [event(_chunk(service, index, token, generation, completion_id)) for token in tokens]


async def _send_in_turn(stream: EventStream, runs: list[tuple[Generation, Encoder]]) -> None:
    events = [_events(generation, encode) for generation, encode in runs]
    while events:
        for each in list(events):
            frame = await anext(each, None)
            if frame is None:
                events.remove(each)
            else:
                await stream.write(frame)


async def _events(generation: Generation, encode: Encoder) -> AsyncIterator[bytes]:
    async for tokens in generation.tokens():
        for frame in encode(tokens):
            yield frame


def _chunk(
    service: Service, index: int, token: GeneratedToken, generation: Generation, completion_id: str
) -> Completion:
    chunk = _completion(service, completion_id)
    reason = token.finish_reason
    text = "" if token.is_special else token.text
    chunk.choices = [CompletionChoice(index, text, None, reason.value if reason else "")]
    if reason is not None:
        chunk.usage = openai.usage_of([generation])
    return chunk
