"""The application: which path goes to which handler, through which middleware. Nothing else."""

from __future__ import annotations

from aiohttp import web

from tgi_cli.runtime.router import middleware
from tgi_cli.runtime.router.routes import chat, completions, facts, generate
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.service import Service

INFERENCE_ROUTES = {
    "/": generate.compat_generate,
    "/generate": generate.generate,
    "/generate_stream": generate.generate_stream,
    "/v1/completions": completions.completions,
    "/v1/chat/completions": chat.chat_completions,
    "/tokenize": facts.tokenize,
}
"""POST, behind the API key if there is one."""

FACT_ROUTES = {
    "/": facts.health,
    "/health": facts.health,
    "/ping": facts.health,
    "/info": facts.info,
    "/metrics": facts.metrics,
    "/v1/models": facts.models,
    "/v1/models/{model:.+}": facts.model,
}
"""GET and HEAD, open to all."""


def make_app(service: Service) -> web.Application:
    config = service.config
    app = web.Application(
        middlewares=[
            middleware.count_open,
            middleware.map_errors,
            middleware.answer_preflights,
            middleware.check_key(config.api_key, frozenset(INFERENCE_ROUTES)),
        ],
        client_max_size=config.limits.payload_limit_bytes,
    )
    app[SERVICE] = service
    for path, handler in INFERENCE_ROUTES.items():
        app.router.add_post(path, handler)
    for path, fact_handler in FACT_ROUTES.items():
        app.router.add_get(path, fact_handler)
    app.on_response_prepare.append(middleware.cors_headers(config.cors_allow_origin))
    return app
