"""`/v1/chat/completions` (spec/http-api.md section 10)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from tgi_cli.errors import MissingTemplateVariable, TemplateError
from tgi_cli.runtime.router.bodies import DESERIALIZE, BodyError, read_body
from tgi_cli.runtime.router.headers import reply_headers, stream_headers
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.chat import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    Logprobs,
    TokenLogprob,
)
from tgi_cli.runtime.router.schemas.common import Usage, finite
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import Generation, Prompt, Service
from tgi_cli.runtime.router.streaming import EventStream, event
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.router.validation import unsupported
from tgi_cli.runtime.text.chat_template import RenderedChat

if TYPE_CHECKING:
    from aiohttp import web


async def chat_completions(request: web.Request) -> web.StreamResponse:
    openai.tell_errors_in_openai_form(request)
    service = request.app[SERVICE]
    body = await read_body(request, ChatRequest)
    messages = [_message(message, index) for index, message in enumerate(body.messages)]
    service.metrics.count("tgi_request_count")
    parameters = _parameters(body)
    rendered = await _render(service, body, messages)
    num_characters = len(rendered.text)
    prompt = _prompt(rendered, is_stream=bool(body.stream))
    if body.stream:
        headers = stream_headers(service.config.compute_type, num_characters)
        open_runs = partial(_open, service, prompt, parameters)
        send = partial(_send, service, body)
        return await openai.send_stream(request, headers, open_runs, send)
    async with await service.start(prompt, parameters) as generation:
        tokens = await generation.run()
    assert generation.finish_reason is not None
    choice = ChatChoice(
        index=0,
        message=AssistantMessage("assistant", generation.text),
        logprobs=_logprobs(tokens) if body.logprobs else None,
        finish_reason=openai.finish_reason(
            generation.finish_reason, is_strict=service.config.openai_strict
        ),
    )
    reply = ChatCompletion(
        object="chat.completion",
        id=openai.new_id("chatcmpl"),
        created=openai.now(),
        model=_shown_model(service, body),
        system_fingerprint=openai.system_fingerprint(service.config),
        choices=[choice],
        usage=openai.usage_of([generation]),
    )
    headers = reply_headers(service.config.compute_type, num_characters, [generation])
    return json_reply(reply, headers=headers)


async def plain_chat(service: Service, body: ChatRequest) -> str:
    """Return the text of one generation, tools left aside."""
    body = msgspec.structs.replace(body, tools=None, tool_choice=None)
    messages = [_message(message, index) for index, message in enumerate(body.messages)]
    parameters = _parameters(body)
    prompt = _prompt(await _render(service, body, messages))
    async with await service.start(prompt, parameters) as generation:
        await generation.run()
    return generation.text


def _shown_model(service: Service, body: ChatRequest) -> str:
    """Unknown names run the served model and are echoed."""
    return service.config.model_id if body.model in (None, "tgi") else str(body.model)


def _message(message: ChatMessage, index: int) -> dict[str, Any]:
    """Return a message as the template reads it. Raises `BodyError` for one without content."""
    content = message.content
    if message.tool_calls:
        raise unsupported("messages.tool_calls")
    if content is None:
        raise BodyError(422, f"{DESERIALIZE}messages[{index}]: missing field `content`")
    if isinstance(content, list):
        content = "".join(_text_part(part, index) for part in content)
    return {"role": message.role, "content": content}


def _text_part(part: dict[str, Any], index: int) -> str:
    kind, text = part.get("type"), part.get("text")
    if kind == "image_url":
        raise unsupported("image_url")
    if kind != "text" or not isinstance(text, str):
        raise BodyError(422, f"{DESERIALIZE}messages[{index}].content: unknown content part")
    return text


def _parameters(body: ChatRequest) -> GenerateParameters:
    if body.tools and body.tool_choice != "none":
        raise unsupported("tools")
    if body.response_format is not None and body.response_format.get("type") != "text":
        raise unsupported("response_format")
    if body.top_logprobs:
        raise unsupported("top_logprobs")
    if (body.n or 1) > 1:
        raise unsupported("n")
    parameters = openai.sampling_parameters(body)
    if body.max_completion_tokens is not None:
        parameters.max_new_tokens = body.max_completion_tokens
    return parameters


async def _render(
    service: Service, body: ChatRequest, messages: list[dict[str, Any]]
) -> RenderedChat:
    try:
        with service.trace("apply_chat_template"):
            return await service.chat_template.render(
                messages,
                add_generation_prompt=body.add_generation_prompt is not False,
                continue_final_message=body.continue_final_message,
            )
    except (TemplateError, MissingTemplateVariable) as exc:
        if exc.message != "template not found":
            service.metrics.fail("template")
        raise


def _prompt(rendered: RenderedChat, *, is_stream: bool = False) -> Prompt:
    return Prompt(
        rendered.text, add_special_tokens=False, is_stream=is_stream, marked=rendered.marked
    )


def _logprobs(tokens: list[GeneratedToken]) -> Logprobs:
    return Logprobs([TokenLogprob(token.text, finite(token.logprob)) for token in tokens])


@asynccontextmanager
async def _open(
    service: Service, prompt: Prompt, parameters: GenerateParameters
) -> AsyncIterator[Generation]:
    async with await service.start(prompt, parameters) as generation:
        yield generation


async def _send(
    service: Service, body: ChatRequest, generation: Generation, stream: EventStream
) -> None:
    chat_id, model = openai.new_id("chatcmpl"), _shown_model(service, body)
    is_strict = service.config.openai_strict

    def chunk(choices: list[ChunkChoice], usage: Usage | None = None) -> bytes:
        return event(
            ChatChunk(
                object="chat.completion.chunk",
                id=chat_id,
                created=openai.now(),
                model=model,
                system_fingerprint=openai.system_fingerprint(service.config),
                choices=choices,
                usage=usage,
            )
        )

    def encode(tokens: list[GeneratedToken]) -> list[bytes]:
        return [chunk([_choice(token, body, is_strict=is_strict)]) for token in tokens]

    await openai.send_in_turn(stream, [(generation, encode)])
    if body.includes_usage:
        await stream.write(chunk([], openai.usage_of([generation])))


def _choice(token: GeneratedToken, body: ChatRequest, *, is_strict: bool) -> ChunkChoice:
    reason = token.finish_reason
    return ChunkChoice(
        index=0,
        delta=AssistantMessage("assistant", "" if token.is_special else token.text),
        logprobs=_logprobs([token]) if body.logprobs else None,
        finish_reason=reason and openai.finish_reason(reason, is_strict=is_strict),
    )
