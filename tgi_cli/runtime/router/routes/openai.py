"""What both OpenAI routes share: parameters, several runs of a prompt, streams, errors.

Here, and only here, is what `--openai-strict` changes: OpenAI's own words, statuses and error
object where TGI's differ and its callers rely on them (spec/http-api.md sections 5.2 and 16).
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tgi_cli import __version__
from tgi_cli.errors import RequestError, ValidationError
from tgi_cli.runtime.config.resolved import RequestLimits, RouterConfig
from tgi_cli.runtime.router import grammars
from tgi_cli.runtime.router.bodies import BodyError
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.replies import ERROR_REPLY, json_reply
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.common import Usage, float32
from tgi_cli.runtime.router.schemas.generate import GenerateParameters, GreedyParameters
from tgi_cli.runtime.router.schemas.openai import OpenAIError, OpenAIErrorBody, OpenAIRequest
from tgi_cli.runtime.router.streaming import DONE, EventStream, event, send_events
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.text.stop_hiding import StopStringHider
from tgi_cli.runtime.types import FinishReason

if TYPE_CHECKING:
    from aiohttp import web

Runs = TypeVar("Runs")
Encoder = Callable[[list[GeneratedToken]], list[bytes]]
"""Makes the events of new tokens."""

_SEED_STRIDE = 0x9E3779B97F4A7C15  # odd, so that no two runs of a request share a seed
_ERROR_TYPES = {429: "rate_limit_error", 424: "server_error"}
_NAMED_FIELD = re.compile(r"`(\w+)`")


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


def now() -> int:
    return int(time.time())


def system_fingerprint(config: RouterConfig) -> str:
    return f"{__version__}-{config.docker_label or 'native'}"


def sampling_parameters(body: OpenAIRequest) -> GenerateParameters:
    """Return the native parameters; temperature 0 is greedy, absent means sampling at 1.0."""
    is_greedy = body.temperature is not None and float32(body.temperature) == 0.0
    kind = GreedyParameters if is_greedy else GenerateParameters
    return kind(
        do_sample=not is_greedy,
        temperature=None if is_greedy else body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        typical_p=body.typical_p,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        logit_bias=body.logit_bias if isinstance(body.logit_bias, dict) else None,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop,
        seed=body.seed,
        max_new_tokens=body.max_tokens,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        truncate=body.truncate,
        watermark=body.watermark,
    )


def asked_grammar(body: OpenAIRequest) -> dict[str, Any] | None:
    """Return the one grammar that `body` asks for. Raises `ValidationError` for more than one."""
    guided = grammars.parse_guided(msgspec.structs.asdict(body))
    if guided is not None and body.response_format is not None:
        raise ValidationError("`response_format` and `guided_…` fields exclude one another")
    return guided or body.response_format


def check_n(n: int | None, limits: RequestLimits) -> int:
    """Return how many completions of a prompt are wanted. Raises `ValidationError`."""
    count = 1 if n is None else n
    if not 1 <= count <= limits.max_client_batch_size:
        raise ValidationError(
            f"`n` must be > 0 and <= {limits.max_client_batch_size}. Given: {count}"
        )
    return count


def parameters_of_run(parameters: GenerateParameters, run: int) -> GenerateParameters:
    """Return the parameters of one of a prompt's runs; the first has the request's own seed."""
    if run == 0 or parameters.seed is None:
        return parameters
    seed = (parameters.seed + run * _SEED_STRIDE) % 2**64
    return msgspec.structs.replace(parameters, seed=seed)


def finish_reason(reason: FinishReason, *, is_strict: bool) -> str:
    """Return OpenAI's word, except for a stop string, where TGI's callers know TGI's."""
    is_stop = reason is FinishReason.EOS_TOKEN or (
        is_strict and reason is FinishReason.STOP_SEQUENCE
    )
    return "stop" if is_stop else reason.value


def stop_hider(parameters: GenerateParameters, config: RouterConfig) -> StopStringHider | None:
    """Return what leaves the stop string out of a choice's text, which TGI keeps it in."""
    return StopStringHider(parameters.stop or ()) if config.openai_strict else None


def hide_stop(hider: StopStringHider, text: str, reason: FinishReason | None) -> str:
    """Return what of `text` to show; `reason` is that of the choice's last piece."""
    if reason is None:
        return hider.push(text)
    return hider.push_last(text, is_stopped=reason is FinishReason.STOP_SEQUENCE)


def usage_of(generations: Sequence[Generation], *, runs_per_prompt: int = 1) -> Usage:
    """Return the tokens of `generations`, a prompt's runs side by side; it is counted once."""
    prompt_tokens = sum(generation.input_length for generation in generations[::runs_per_prompt])
    completion_tokens = sum(generation.num_tokens for generation in generations)
    return Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)


async def send_stream(
    request: web.Request,
    headers: dict[str, str],
    open_runs: Callable[[], AbstractAsyncContextManager[Runs]],
    send: Callable[[Runs, EventStream], Awaitable[None]],
) -> web.StreamResponse:
    """Open the runs, send their events and the end mark; an error is one more event.

    TGI's status is 200 whatever happens to the runs. OpenAI's is that of the error, so in strict
    mode they are opened before the reply is begun.
    """
    is_strict = request.app[SERVICE].config.openai_strict

    def error_frames(error: RequestError) -> bytes:
        return error_event(error, is_strict=is_strict) + DONE

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_runs())] if is_strict else []

        async def produce(stream: EventStream) -> None:
            # Left here and not outside, so that the runs see the error that ends them.
            async with stack.pop_all() as inner:
                runs = opened[0] if opened else await inner.enter_async_context(open_runs())
                await send(runs, stream)
            await stream.write(DONE)

        return await send_events(request, headers, produce, error_frames)


async def send_in_turn(stream: EventStream, runs: Sequence[tuple[Generation, Encoder]]) -> None:
    """Send the events of all runs, one of each in turn."""
    if len(runs) == 1:
        generation, encode = runs[0]
        await generation.stream_to(stream, lambda tokens: b"".join(encode(tokens)))
        return
    await send_interleaved(stream, [_events(generation, encode) for generation, encode in runs])


async def send_interleaved(stream: EventStream, events: Sequence[AsyncIterator[bytes]]) -> None:
    """Send what all of them yield, one event of each in turn."""
    open_events = list(events)
    while open_events:
        for each in list(open_events):
            frame = await anext(each, None)
            if frame is None:
                open_events.remove(each)
            else:
                await stream.write(frame)


async def _events(generation: Generation, encode: Encoder) -> AsyncIterator[bytes]:
    async for tokens in generation.tokens():
        for frame in encode(tokens):
            yield frame


def error_event(error: RequestError, *, is_strict: bool) -> bytes:
    if is_strict:
        return event(_strict_body(error.wire_text, error.status, error.kind))
    # Beside TGI's two keys the type, by which clients of TGI choose the error that they raise.
    body = {"message": error.wire_text, "http_status_code": error.status}
    return event({"error": body, "error_type": error.kind})


def tell_errors_in_openai_form(request: web.Request) -> None:
    """Have what goes wrong with `request` told as OpenAI does, if the server is strict."""
    if request.app[SERVICE].config.openai_strict:
        request[ERROR_REPLY] = _strict_reply


def _strict_reply(error: RequestError | BodyError) -> web.Response:
    if isinstance(error, BodyError):
        body = _strict_body(error.text, error.status, None)
    else:
        body = _strict_body(error.wire_text, error.status, error.kind)
    return json_reply(body, status=error.status)


def _strict_body(message: str, status: int, code: str | None) -> OpenAIErrorBody:
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    field = _NAMED_FIELD.search(message) if status == 422 else None
    return OpenAIErrorBody(OpenAIError(message, kind, field[1] if field else None, code))
