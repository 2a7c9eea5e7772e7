"""Every route: path, method, handler, who may call it, and what the documentation says of it.

`app.py` registers exactly these, the key check asks for their scope, and `openapi.py` describes
them; so a route can't be open, or undocumented, by having been forgotten.
Source: spec/http-api.md section 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.router.routes import (
    chat,
    completions,
    docs,
    facts,
    generate,
    health,
    kserve,
    sagemaker,
    vertex,
)
from tgi_cli.runtime.router.schemas.chat import ChatChunk, ChatCompletion, ChatRequest, ChatTokens
from tgi_cli.runtime.router.schemas.completions import (
    Completion,
    CompletionChunk,
    CompletionRequest,
)
from tgi_cli.runtime.router.schemas.facts import HealthState, Info, Model, ModelList, SimpleToken
from tgi_cli.runtime.router.schemas.generate import (
    CompatGenerateRequest,
    GenerateReply,
    GenerateRequest,
    StreamEvent,
)
from tgi_cli.runtime.router.schemas.kserve import (
    InferReply,
    InferRequest,
    Liveness,
    ModelMetadata,
    ServerMetadata,
)
from tgi_cli.runtime.router.schemas.vertex import VertexInstance, VertexReply, VertexRequest

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler


class Scope(Enum):
    """Who may call a route when the server has API keys."""

    OPEN = "open"  # everybody: probes, facts, metrics
    INFERENCE = "inference"  # who has a key
    CHAT_TOKENIZE = "chat_tokenize"  # everybody, unless the operator protects it


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `body`, `reply` and `event` are types of the wire, or several."""

    method: str  # GET answers HEAD too
    path: str
    handler: Handler
    scope: Scope
    tag: str  # under which the documentation lists it
    summary: str
    body: Any = None
    status: int = 200  # when all goes well
    reply: Any = None  # then, as one body; None: without one
    event: Any = None  # of a stream
    media_type: str = "application/json"
    errors: dict[int, str] = field(default_factory=dict)  # beyond those of every such route
    parts: tuple[Any, ...] = ()  # types that `body` names without holding them

    def needs_key(self, config: RouterConfig) -> bool:
        """Whether only holders of a key may call it, where there are keys."""
        if self.scope is Scope.CHAT_TOKENIZE:
            return config.protects_chat_tokenize
        return self.scope is Scope.INFERENCE

    @property
    def generates(self) -> bool:
        """Whether it asks the engine for tokens, and so can fail as a generation can."""
        return self.scope is Scope.INFERENCE and self.path != "/tokenize"


def _inference(path: str, handler: Handler, tag: str, summary: str, **facts: Any) -> Route:
    return Route("POST", path, handler, Scope.INFERENCE, tag, summary, **facts)


def _fact(path: str, handler: Handler, tag: str, summary: str, **facts: Any) -> Route:
    return Route("GET", path, handler, Scope.OPEN, tag, summary, **facts)


def _vertex(path: str) -> Route:
    return _inference(
        path,
        vertex.predict,
        _VERTEX,
        "Generate for each instance",
        body=VertexRequest,
        reply=VertexReply,
        parts=(VertexInstance, ChatRequest),
    )


def _health(path: str) -> Route:
    return _fact(path, health.health, _SERVER, "Check the server's health", errors=_UNHEALTHY)


_NATIVE, _OPENAI, _SERVER = "Text generation", "OpenAI", "Server"
_SAGEMAKER, _VERTEX, _KSERVE = "SageMaker", "Vertex AI", "KServe"
_KSERVE_MODEL = "/v2/models/{name}/versions/{version}"
_UNHEALTHY = {503: "The server can't answer generation requests now"}

ROUTES: tuple[Route, ...] = (
    _inference(
        "/",
        generate.compat_generate,
        _NATIVE,
        "Generate tokens, as a stream if `stream` is true",
        body=CompatGenerateRequest,
        reply=list[GenerateReply],
        event=StreamEvent,
    ),
    _inference(
        "/generate",
        generate.generate,
        _NATIVE,
        "Generate tokens",
        body=GenerateRequest,
        reply=GenerateReply,
    ),
    _inference(
        "/generate_stream",
        generate.generate_stream,
        _NATIVE,
        "Generate a stream of tokens",
        body=GenerateRequest,
        event=StreamEvent,
    ),
    _inference(
        "/v1/completions",
        completions.completions,
        _OPENAI,
        "Complete a text, or several",
        body=CompletionRequest,
        reply=Completion,
        event=(CompletionChunk, Completion),
    ),
    _inference(
        "/v1/chat/completions",
        chat.chat_completions,
        _OPENAI,
        "Answer a chat",
        body=ChatRequest,
        reply=ChatCompletion,
        event=ChatChunk,
    ),
    _inference(
        "/tokenize",
        facts.tokenize,
        _NATIVE,
        "Show the tokens of a text",
        body=GenerateRequest,
        reply=list[SimpleToken],
    ),
    Route(
        "POST",
        "/chat_tokenize",
        chat.chat_tokenize,
        Scope.CHAT_TOKENIZE,
        _NATIVE,
        "Show a chat's prompt and its tokens",
        body=ChatRequest,
        reply=ChatTokens,
    ),
    _inference(
        "/invocations",
        sagemaker.invocations,
        _SAGEMAKER,
        "Generate, chat or complete, as the body asks",
        body=(CompatGenerateRequest, ChatRequest, CompletionRequest),
        reply=(list[GenerateReply], ChatCompletion, Completion),
        event=(StreamEvent, ChatChunk, CompletionChunk, Completion),
    ),
    _vertex("/vertex"),
    _inference(
        f"{_KSERVE_MODEL}/infer",
        kserve.infer,
        _KSERVE,
        "Generate from each input",
        body=InferRequest,
        reply=InferReply,
    ),
    _fact(_KSERVE_MODEL, kserve.model_metadata, _KSERVE, "Show the model", reply=ModelMetadata),
    _fact(
        f"{_KSERVE_MODEL}/ready",
        kserve.ready,
        _KSERVE,
        "Check that the model answers",
        reply=Liveness,
        errors=_UNHEALTHY,
    ),
    _fact("/v2", kserve.server_metadata, _KSERVE, "Show the server", reply=ServerMetadata),
    _fact(
        "/v2/health/live",
        kserve.live,
        _KSERVE,
        "Check that the process lives",
        reply=Liveness,
        errors=_UNHEALTHY,
    ),
    _fact(
        "/v2/health/ready",
        kserve.ready,
        _KSERVE,
        "Check that the server answers",
        reply=Liveness,
        errors=_UNHEALTHY,
    ),
    _health("/"),
    _health("/health"),
    _health("/ping"),
    _fact(
        "/health/live",
        health.live,
        _SERVER,
        "Check that the process lives",
        reply=HealthState,
        errors=_UNHEALTHY,
    ),
    _fact(
        "/health/ready",
        health.ready,
        _SERVER,
        "Check that the server answers",
        reply=HealthState,
        errors=_UNHEALTHY,
    ),
    _fact("/info", facts.info, _SERVER, "Show model and limits", reply=Info),
    _fact("/metrics", facts.metrics, _SERVER, "Scrape metrics", reply=str, media_type="text/plain"),
    _fact(
        "/docs", docs.docs, _SERVER, "Show this API as a page", reply=str, media_type="text/html"
    ),
    _fact("/docs/", docs.docs_elsewhere, _SERVER, "Find that page", status=308),
    _fact(
        "/api-doc/openapi.json", docs.openapi, _SERVER, "Describe this API", reply=dict[str, Any]
    ),
    _fact("/v1/models", facts.models, _OPENAI, "List the models", reply=ModelList),
    _fact(
        "/v1/models/{model:.+}",
        facts.model,
        _OPENAI,
        "Show one model",
        reply=Model,
        errors={404: "No such model"},
    ),
)


def routes_of(config: RouterConfig) -> tuple[Route, ...]:
    """Return the routes of a server with this configuration.

    A path that Vertex AI's variables name is Vertex's, whatever it was before.
    """
    routes = {(route.method, route.path): route for route in ROUTES}
    if config.vertex_predict_route is not None:
        path = config.vertex_predict_route
        routes["POST", path] = _vertex(path)
    if config.vertex_health_route is not None:
        path = config.vertex_health_route
        routes["GET", path] = _health(path)
    return tuple(routes.values())
