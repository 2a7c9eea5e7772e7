"""KServe's protocol, version 2 (spec/http-api.md section 15).

There is one model, so a path may call it anything, and its answer says the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli import __version__
from tgi_cli.errors import LengthMismatch, NotUtf8, OverloadedError
from tgi_cli.runtime.router.bodies import decode_body, read_raw
from tgi_cli.runtime.router.concurrency import run_together
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.routes.generate import generate_reply
from tgi_cli.runtime.router.schemas.generate import GenerateRequest
from tgi_cli.runtime.router.schemas.kserve import (
    InferInput,
    InferOutput,
    InferReply,
    InferRequest,
    Liveness,
    ModelMetadata,
    ServerMetadata,
)

if TYPE_CHECKING:
    from aiohttp import web

MAX_NUMBERS = 1_000_000  # every byte of a prompt is one, and a small one costs a pointer


async def infer(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = decode_body(await read_raw(request, max_numbers=MAX_NUMBERS), InferRequest)
    if len(body.inputs) != len(body.outputs):
        raise LengthMismatch
    if len(body.inputs) > service.config.limits.max_concurrent_requests:
        raise OverloadedError  # they could never all have a permit
    prompts = [_text(each) for each in body.inputs]
    replies = await run_together(
        [
            generate_reply(
                service,
                GenerateRequest(inputs=prompt, parameters=body.parameters),
                full_text_default=False,
            )
            for prompt in prompts
        ]
    )
    outputs = [
        _output(wanted.name, reply.generated_text)
        for wanted, (reply, _) in zip(body.outputs, replies, strict=True)
    ]
    return json_reply(InferReply(body.id, outputs))


def _text(given: InferInput) -> str:
    try:
        return bytes(given.data).decode()
    except UnicodeDecodeError as exc:
        raise NotUtf8(exc.start) from exc


def _output(name: str, text: str) -> InferOutput:
    data = list(text.encode())
    return InferOutput(name, [1, len(data)], "BYTES", data)


async def server_metadata(_request: web.Request) -> web.Response:
    extensions = ["health", "models", "metrics"]
    return json_reply(ServerMetadata("text-generation-inference", __version__, extensions))


async def model_metadata(request: web.Request) -> web.Response:
    path = request.match_info
    return json_reply(ModelMetadata(path["name"], path["version"], ["infer", "ready"]))


async def live(request: web.Request) -> web.Response:
    return _liveness(request.app[SERVICE].heartbeat.is_well)


async def ready(request: web.Request) -> web.Response:
    return _liveness(request.app[SERVICE].check_health())


def _liveness(is_well: bool) -> web.Response:
    return json_reply(Liveness(is_well), status=200 if is_well else 503)
