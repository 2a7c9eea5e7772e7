"""Vertex AI: several prompts or chats in, a text for each out (spec/http-api.md section 14).

Each instance is a plain generation of its own, with all its parameters; they run side by side. The
first error is the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.errors import EmptyInstances, OverloadedError
from tgi_cli.runtime.router.bodies import decode_body, decode_first, read_raw
from tgi_cli.runtime.router.concurrency import run_together
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes.chat import plain_chat
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.routes.generate import generate_reply
from tgi_cli.runtime.router.schemas.chat import ChatRequest
from tgi_cli.runtime.router.schemas.generate import GenerateRequest
from tgi_cli.runtime.router.schemas.vertex import (
    VertexInstance,
    VertexParameters,
    VertexReply,
    VertexRequest,
)
from tgi_cli.runtime.router.service import Service

if TYPE_CHECKING:
    import msgspec
    from aiohttp import web

MAX_NUMBERS = 50_000  # an instance that isn't decoded yet costs more than a number
_KINDS: dict[str, type[msgspec.Struct]] = {"inputs": VertexInstance, "messages": ChatRequest}


async def predict(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = decode_body(await read_raw(request, max_numbers=MAX_NUMBERS), VertexRequest)
    if len(body.instances) > service.config.limits.max_concurrent_requests:
        raise OverloadedError  # they could never all have a permit
    instances = [
        decode_first(bytes(raw), _KINDS, where=f"instances[{index}]")
        for index, raw in enumerate(body.instances)
    ]
    service.metrics.count("tgi_request_count")
    if not instances:
        raise EmptyInstances
    texts = await run_together([_predict(service, instance) for instance in instances])
    return json_reply(VertexReply(texts))


async def _predict(service: Service, instance: msgspec.Struct) -> str:
    if isinstance(instance, ChatRequest):
        return await plain_chat(service, instance)
    assert isinstance(instance, VertexInstance)
    parameters = instance.parameters or VertexParameters()
    body = GenerateRequest(inputs=instance.inputs, parameters=parameters)
    reply, _ = await generate_reply(service, body, full_text_default=False)
    return reply.generated_text
