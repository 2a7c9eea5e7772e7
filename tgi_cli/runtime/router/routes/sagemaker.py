"""`/invocations`: one path for three kinds of request (spec/http-api.md section 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.runtime.router.bodies import decode_first, read_raw
from tgi_cli.runtime.router.routes.chat import chat_completions
from tgi_cli.runtime.router.routes.completions import completions
from tgi_cli.runtime.router.routes.generate import compat_generate
from tgi_cli.runtime.router.schemas.chat import ChatRequest
from tgi_cli.runtime.router.schemas.completions import CompletionRequest
from tgi_cli.runtime.router.schemas.generate import CompatGenerateRequest

if TYPE_CHECKING:
    import msgspec
    from aiohttp import web
    from aiohttp.typedefs import Handler

_KINDS: dict[str, type[msgspec.Struct]] = {
    "inputs": CompatGenerateRequest,
    "messages": ChatRequest,
    "prompt": CompletionRequest,
}
_HANDLERS: dict[type[msgspec.Struct], Handler] = {
    CompatGenerateRequest: compat_generate,
    ChatRequest: chat_completions,
    CompletionRequest: completions,
}


async def invocations(request: web.Request) -> web.StreamResponse:
    """Hand the request, whose body is kept, on to the handler of the kind that it is."""
    body = decode_first(await read_raw(request), _KINDS)
    return await _HANDLERS[type(body)](request)
