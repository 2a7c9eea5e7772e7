"""What both OpenAI routes share: parameters, finish reasons, usage, errors inside a stream."""

from __future__ import annotations

import secrets
import time

from tgi_cli import __version__
from tgi_cli.errors import RequestError
from tgi_cli.runtime.router.schemas.chat import ChatRequest
from tgi_cli.runtime.router.schemas.common import Usage
from tgi_cli.runtime.router.schemas.completions import CompletionRequest
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import Generation
from tgi_cli.runtime.router.streaming import event
from tgi_cli.runtime.router.validation import unsupported
from tgi_cli.runtime.types import FinishReason

SYSTEM_FINGERPRINT = f"{__version__}-native"


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


def now() -> int:
    return int(time.time())


def sampling_parameters(body: ChatRequest | CompletionRequest) -> GenerateParameters:
    """Return the native parameters; temperature 0 is greedy, absent means sampling at 1.0."""
    if body.presence_penalty:
        raise unsupported("presence_penalty")
    if (body.n or 1) > 1:
        raise unsupported("n")
    temperature = body.temperature
    is_greedy = temperature == 0.0
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return GenerateParameters(
        temperature=None if is_greedy else temperature,
        do_sample=not is_greedy,
        # Greedy decoding has no use for it, and setting it would switch sampling on again.
        top_p=None if is_greedy else body.top_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        stop=stop,
        seed=body.seed,
    )


def finish_reason(reason: FinishReason) -> str:
    """Return OpenAI's word, except for a stop string, where TGI's callers know TGI's."""
    return "stop" if reason is FinishReason.EOS_TOKEN else reason.value


def usage_of(generations: list[Generation]) -> Usage:
    prompt_tokens = sum(generation.input_length for generation in generations)
    completion_tokens = sum(generation.num_tokens for generation in generations)
    return Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)


def error_event(error: RequestError) -> bytes:
    return event({"error": {"message": error.wire_text, "http_status_code": error.status}})
