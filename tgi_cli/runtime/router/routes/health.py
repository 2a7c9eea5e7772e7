"""Probes: TGI's `/health`, and `/health/live` and `/health/ready` for orchestrators.

All answer from state, at once: a probe must not wait behind a long prompt, and costs the engine
nothing. Source: spec/http-api.md section 3.
"""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from tgi_cli.errors import UnhealthyError
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.facts import HealthState
from tgi_cli.runtime.router.service import Service


async def health(request: web.Request) -> web.Response:
    if not request.app[SERVICE].check_health():
        raise UnhealthyError
    return web.Response()


async def live(request: web.Request) -> web.Response:
    """200 while the event loop, which answers this, and the engine live; a stalled one doesn't."""
    service = request.app[SERVICE]
    return _state_reply(service, is_well=service.heartbeat.is_well)


async def ready(request: web.Request) -> web.Response:
    """200 while a generation request would be answered."""
    service = request.app[SERVICE]
    return _state_reply(service, is_well=service.check_health())


def _state_reply(service: Service, *, is_well: bool) -> web.Response:
    heartbeat = service.heartbeat
    state = HealthState(
        status=_status(service),
        model=service.config.model_id,
        running=heartbeat.num_running,
        waiting=heartbeat.num_waiting,
        last_step_age_s=heartbeat.last_step_age_s,
        uptime_s=heartbeat.uptime_s,
    )
    return json_reply(state, status=200 if is_well else 503)


def _status(
    service: Service,
) -> Literal["ok", "idle", "draining", "failing", "stalled", "dead"]:
    if not service.heartbeat.is_alive:
        return "dead"
    if service.is_draining:
        return "draining"
    if service.heartbeat.is_stalled:
        return "stalled"
    if service.last_step_failed:
        return "failing"
    return "ok" if service.heartbeat.is_busy else "idle"
