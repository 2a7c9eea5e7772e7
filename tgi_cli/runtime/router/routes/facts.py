"""What the server says about itself: `/info`, `/v1/models`, `/metrics`, `/tokenize`."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from tgi_cli import __version__
from tgi_cli.errors import ValidationError
from tgi_cli.runtime.router.bodies import read_body
from tgi_cli.runtime.router.metrics import CONTENT_TYPE
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.facts import Info, Model, ModelList
from tgi_cli.runtime.router.schemas.generate import GenerateRequest


async def info(request: web.Request) -> web.Response:
    config = request.app[SERVICE].config
    limits = config.limits
    return json_reply(
        Info(
            model_id=config.model_id,
            model_sha=config.model_sha,
            model_pipeline_tag=config.model_pipeline_tag,
            max_concurrent_requests=limits.max_concurrent_requests,
            max_best_of=limits.max_best_of,
            max_stop_sequences=limits.max_stop_sequences,
            max_input_tokens=limits.max_input_tokens,
            max_total_tokens=limits.max_total_tokens,
            validation_workers=config.validation_workers,
            max_client_batch_size=limits.max_client_batch_size,
            version=__version__,
            sha=config.build_sha,
            docker_label=config.docker_label,
            model_dtype=config.model_dtype,
            model_device_type=config.model_device_type,
            waiting_served_ratio=config.waiting_served_ratio,
            max_batch_total_tokens=config.max_batch_total_tokens,
            max_waiting_tokens=config.max_waiting_tokens,
            max_batch_size=config.max_batch_size,
            max_input_length=limits.max_input_tokens,
        )
    )


def _models(request: web.Request) -> list[Model]:
    config = request.app[SERVICE].config
    ids = (config.model_id, *config.adapter_ids)
    return [Model(id=model_id, object="model", created=0, owned_by=model_id) for model_id in ids]


async def models(request: web.Request) -> web.Response:
    return json_reply(ModelList(object="list", data=_models(request)))


async def model(request: web.Request) -> web.Response:
    asked = request.match_info["model"]
    found = next((each for each in _models(request) if each.id == asked), None)
    if found is None:
        raise web.HTTPNotFound
    return json_reply(found)


async def metrics(request: web.Request) -> web.Response:
    return web.Response(
        body=request.app[SERVICE].metrics.render(),
        headers={"content-type": CONTENT_TYPE},
    )


async def tokenize(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, GenerateRequest)
    if not body.inputs:
        raise ValidationError("`inputs` cannot be empty")
    encode = partial(service.tokenizer.encode_with_offsets, body.inputs, add_special_tokens=True)
    return json_reply(await service.show_tokens(body.inputs, encode))
