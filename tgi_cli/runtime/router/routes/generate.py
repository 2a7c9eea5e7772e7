"""TGI's own routes: `/generate`, `/generate_stream` and `/` (spec/http-api.md sections 6 to 8)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from tgi_cli.errors import RequestError
from tgi_cli.runtime.router import validation
from tgi_cli.runtime.router.bodies import read_body
from tgi_cli.runtime.router.concurrency import run_together
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.headers import reply_headers, stream_headers
from tgi_cli.runtime.router.replies import error_body, json_reply
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.common import finite
from tgi_cli.runtime.router.schemas.generate import (
    BestOfSequence,
    CompatGenerateRequest,
    Details,
    GenerateParameters,
    GenerateReply,
    GenerateRequest,
    PrefillToken,
    StreamDetails,
    StreamEvent,
    Token,
)
from tgi_cli.runtime.router.service import Prompt, Service
from tgi_cli.runtime.router.streaming import EventStream, event, send_events
from tgi_cli.runtime.router.tokens import GeneratedToken, ScoredToken

if TYPE_CHECKING:
    from aiohttp import web

Finished = tuple[Generation, list[GeneratedToken]]


async def generate(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, GenerateRequest)
    reply, headers = await generate_reply(request.app[SERVICE], body, full_text_default=False)
    return json_reply(reply, headers=headers)


async def generate_stream(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, GenerateRequest)
    return await _stream(request, body, full_text_default=False)


async def compat_generate(request: web.Request) -> web.StreamResponse:
    """`POST /`: streams if the body says so; else the reply is a list of one."""
    service = request.app[SERVICE]
    body = await read_body(request, CompatGenerateRequest)
    default = service.config.model_pipeline_tag in (None, "text-generation")
    if body.stream:
        return await _stream(request, body, full_text_default=default)
    reply, headers = await generate_reply(service, body, full_text_default=default)
    return json_reply([reply], headers=headers)


async def generate_reply(
    service: Service, body: GenerateRequest, *, full_text_default: bool
) -> tuple[GenerateReply, dict[str, str]]:
    """Return the whole answer to `body`, and its headers."""
    parameters = body.effective_parameters()
    best_of = parameters.best_of or 1
    if best_of > 1:
        validation.check_best_of(best_of, service.config.limits)
        finished = await _run_several(service, body, best_of)
    else:
        finished = [await _run(await service.start(Prompt(body.inputs), parameters))]
    best, tokens = finished[0]
    prefix = body.inputs if _wants_full_text(parameters, full_text_default) else ""
    reply = GenerateReply(prefix + best.text)
    if parameters.details or parameters.decoder_input_details:
        reply.details = Details(
            finish_reason=_reason(best),
            generated_tokens=best.num_tokens,
            seed=best.seed,
            prefill=_prefill(best),
            tokens=_wire_tokens(tokens),
            top_tokens=_wire_top_tokens(tokens),
        )
        if best_of > 1:
            reply.details.best_of_sequences = [
                BestOfSequence(
                    prefix + loser.text,
                    _reason(loser),
                    loser.num_tokens,
                    loser.seed,
                    _prefill(loser),
                    _wire_tokens(loser_tokens),
                    _wire_top_tokens(loser_tokens),
                )
                for loser, loser_tokens in finished[1:]
            ]
    return reply, reply_headers(service.config.compute_type, len(body.inputs), [best])


async def _run(generation: Generation) -> Finished:
    async with generation:
        return generation, await generation.run()


async def _run_several(service: Service, body: GenerateRequest, count: int) -> list[Finished]:
    """Return `count` runs in order, but the one with the highest mean log-probability first."""

    async def run_part() -> Finished:
        prompt = Prompt(body.inputs)
        return await _run(await service.start_part(prompt, body.effective_parameters()))

    with service.counted(), service.trace("generate_best_of"):
        finished = await run_together([run_part() for _ in range(count)])
    best = max(range(count), key=lambda run: _mean_logprob(finished[run]))  # of equals the first
    finished.insert(0, finished.pop(best))
    finished[0][0].record_success()
    return finished


def _mean_logprob(finished: Finished) -> float:
    tokens = finished[1]
    return sum(token.logprob for token in tokens) / len(tokens)


def _wants_full_text(parameters: GenerateParameters, default: bool) -> bool:
    return default if parameters.return_full_text is None else parameters.return_full_text


def _reason(generation: Generation) -> str:
    assert generation.finish_reason is not None
    return generation.finish_reason.value


def _prefill(generation: Generation) -> list[PrefillToken]:
    return [
        PrefillToken(t.id, t.text, None if t.logprob is None else finite(t.logprob))
        for t in generation.prompt_tokens
    ]


def _wire_top_tokens(tokens: list[GeneratedToken]) -> list[list[Token]] | UnsetType:
    lists = [_wire_tokens(token.top_tokens) for token in tokens]
    return lists if any(lists) else UNSET


def _wire_tokens(tokens: Sequence[GeneratedToken | ScoredToken]) -> list[Token]:
    return [Token(t.id, t.text, finite(t.logprob), t.is_special) for t in tokens]


async def _stream(
    request: web.Request, body: GenerateRequest, *, full_text_default: bool
) -> web.StreamResponse:
    service = request.app[SERVICE]
    headers = stream_headers(service.config.compute_type, len(body.inputs))
    produce = partial(_send, service, body, full_text_default)
    return await send_events(request, headers, produce, _error_frame)


def _error_frame(error: RequestError) -> bytes:
    return event(error_body(error))


async def _send(
    service: Service, body: GenerateRequest, full_text_default: bool, stream: EventStream
) -> None:
    parameters = body.effective_parameters()
    prefix = body.inputs if _wants_full_text(parameters, full_text_default) else ""

    def encode(tokens: list[GeneratedToken]) -> bytes:
        first = generation.num_tokens - len(tokens) + 1
        return b"".join([event(message(first + i, token)) for i, token in enumerate(tokens)])

    def message(index: int, token: GeneratedToken) -> StreamEvent:
        wire = Token(token.id, token.text, finite(token.logprob), token.is_special)
        streamed = StreamEvent(index, wire)
        if token.top_tokens:
            streamed.top_tokens = _wire_tokens(token.top_tokens)
        if token.finish_reason is not None:
            streamed.generated_text = prefix + generation.text
            if parameters.details:
                streamed.details = StreamDetails(
                    token.finish_reason.value,
                    generation.num_tokens,
                    generation.seed,
                    generation.input_length,
                )
        return streamed

    prompt = Prompt(body.inputs, is_stream=True)
    async with await service.start(prompt, parameters) as generation:
        await generation.stream_to(stream, encode)
