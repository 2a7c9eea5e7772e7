"""`/v1/chat/completions` (spec/http-api.md section 10)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from tgi_cli.errors import MissingTemplateVariable, RequestError, TemplateError
from tgi_cli.runtime.router.bodies import BodyError, read_body
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
from tgi_cli.runtime.router.service import GeneratedToken, Prompt, Service
from tgi_cli.runtime.router.streaming import DONE, EventStream, event, send_events
from tgi_cli.runtime.router.validation import unsupported

if TYPE_CHECKING:
    from aiohttp import web

_DESERIALIZE = "Failed to deserialize the JSON body into the target type: "


async def chat_completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, ChatRequest)
    messages = [_message(message, index) for index, message in enumerate(body.messages)]
    service.metrics.count("tgi_request_count")
    parameters = _parameters(body)
    text = await _render(service, body, messages)
    if body.stream:
        headers = stream_headers(service.config.compute_type, len(text))
        produce = partial(_send, service, body, text, parameters)
        return await send_events(request, headers, produce, _error_frames)
    prompt = Prompt(text, add_special_tokens=False)
    async with await service.start(prompt, parameters) as generation:
        tokens = await generation.run()
    assert generation.finish_reason is not None
    choice = ChatChoice(
        index=0,
        message=AssistantMessage("assistant", generation.text),
        logprobs=_logprobs(tokens) if body.logprobs else None,
        finish_reason=openai.finish_reason(generation.finish_reason),
    )
    reply = ChatCompletion(
        object="chat.completion",
        id=openai.new_id("chatcmpl"),
        created=openai.now(),
        model=_shown_model(service, body),
        system_fingerprint=openai.SYSTEM_FINGERPRINT,
        choices=[choice],
        usage=openai.usage_of([generation]),
    )
    headers = reply_headers(service.config.compute_type, len(text), [generation])
    return json_reply(reply, headers=headers)


def _shown_model(service: Service, body: ChatRequest) -> str:
    """Unknown names run the served model and are echoed."""
    return service.config.model_id if body.model in (None, "tgi") else str(body.model)


def _message(message: ChatMessage, index: int) -> dict[str, Any]:
    """Return a message as the template reads it. Raises `BodyError` for one without content."""
    content = message.content
    if message.tool_calls:
        raise unsupported("messages.tool_calls")
    if content is None:
        raise BodyError(422, f"{_DESERIALIZE}messages[{index}]: missing field `content`")
    if isinstance(content, list):
        content = "".join(_text_part(part, index) for part in content)
    return {"role": message.role, "content": content}


def _text_part(part: dict[str, Any], index: int) -> str:
    kind, text = part.get("type"), part.get("text")
    if kind == "image_url":
        raise unsupported("image_url")
    if kind != "text" or not isinstance(text, str):
        raise BodyError(422, f"{_DESERIALIZE}messages[{index}].content: unknown content part")
    return text


def _parameters(body: ChatRequest) -> GenerateParameters:
    if body.tools and body.tool_choice != "none":
        raise unsupported("tools")
    if body.response_format is not None and body.response_format.get("type") != "text":
        raise unsupported("response_format")
    if body.top_logprobs:
        raise unsupported("top_logprobs")
    is_greedy = body.temperature == 0.0
    max_tokens = body.max_completion_tokens
    return msgspec.structs.replace(
        openai.sampling_parameters(body),
        max_new_tokens=body.max_tokens if max_tokens is None else max_tokens,
        top_k=None if is_greedy else body.top_k,
        typical_p=None if is_greedy else body.typical_p,
        truncate=body.truncate,
    )


async def _render(service: Service, body: ChatRequest, messages: list[dict[str, Any]]) -> str:
    try:
        return await service.chat_template.render(
            messages,
            add_generation_prompt=body.add_generation_prompt is not False,
            continue_final_message=body.continue_final_message,
        )
    except (TemplateError, MissingTemplateVariable) as exc:
        if exc.message != "template not found":
            service.metrics.fail("template")
        raise


def _logprobs(tokens: list[GeneratedToken]) -> Logprobs:
    return Logprobs([TokenLogprob(token.text, finite(token.logprob)) for token in tokens])


async def _send(
    service: Service,
    body: ChatRequest,
    text: str,
    parameters: GenerateParameters,
    stream: EventStream,
) -> None:
    chat_id, model = openai.new_id("chatcmpl"), _shown_model(service, body)
    include_usage = body.stream_options is not None and body.stream_options.include_usage

    def chunk(choices: list[ChunkChoice], usage: Usage | None = None) -> bytes:
        return event(
            ChatChunk(
                object="chat.completion.chunk",
                id=chat_id,
                created=openai.now(),
                model=model,
                system_fingerprint=openai.SYSTEM_FINGERPRINT,
                choices=choices,
                usage=usage,
            )
        )

    def encode(tokens: list[GeneratedToken]) -> bytes:
        return b"".join([chunk([_choice(token, body)]) for token in tokens])

    prompt = Prompt(text, add_special_tokens=False, is_stream=True)
    async with await service.start(prompt, parameters) as generation:
        await generation.stream_to(stream, encode)
    if include_usage:
        await stream.write(chunk([], openai.usage_of([generation])))
    await stream.write(DONE)


def _error_frames(error: RequestError) -> bytes:
    return openai.error_event(error) + DONE


def _choice(token: GeneratedToken, body: ChatRequest) -> ChunkChoice:
    reason = token.finish_reason
    return ChunkChoice(
        index=0,
        delta=AssistantMessage("assistant", "" if token.is_special else token.text),
        logprobs=_logprobs([token]) if body.logprobs else None,
        finish_reason=openai.finish_reason(reason) if reason is not None else None,
    )
