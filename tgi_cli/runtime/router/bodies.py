"""Read and decode request bodies, and refuse them as TGI does (spec/http-api.md section 2.1).

These replies are plain text, not JSON: clients know them by their prefix and status.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from aiohttp import web

Body = TypeVar("Body", bound=msgspec.Struct)

_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json", re.IGNORECASE)
_ERROR_PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_decoders: dict[type[msgspec.Struct], msgspec.json.Decoder[msgspec.Struct]] = {}


class BodyError(Exception):
    """A body that can't be taken; the reply is ready."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


async def read_body(request: web.Request, kind: type[Body]) -> Body:
    """Return the decoded body. Raises `BodyError`."""
    if not _JSON_TYPE.fullmatch(request.content_type if "Content-Type" in request.headers else ""):
        raise BodyError(415, "Expected request with `Content-Type: application/json`")
    limit = request.client_max_size
    try:
        if (request.content_length or 0) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, request.content_length or 0)
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as exc:
        raise BodyError(413, "Failed to buffer the request body: length limit exceeded") from exc
    return decode_body(raw, kind)


def decode_body(raw: bytes, kind: type[Body]) -> Body:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(raw)  # type: ignore[return-value]
    except msgspec.ValidationError as exc:
        raise BodyError(
            422,
            "Failed to deserialize the JSON body into the target type: " + _describe(str(exc), raw),
        ) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BodyError(400, f"Failed to parse the request body as JSON: {exc}") from exc


def _describe(error: str, raw: bytes) -> str:
    """Turn "Expected `int`, got `str` - at `$.a.b`" into "a.b: expected … at line L column C"."""
    match = _ERROR_PATH.match(error)
    assert match is not None
    path = (match["path"] or "$").removeprefix("$").removeprefix(".") or "body"
    names = re.findall(r"[A-Za-z_]\w*", path)
    missing = re.search(r"missing required field `(\w+)`", error)
    position = 0
    for name in names:
        found = raw.find(b'"' + name.encode() + b'"', position)
        position = found if found >= 0 else position
    line = raw.count(b"\n", 0, position) + 1
    column = position - (raw.rfind(b"\n", 0, position) + 1) + 1
    message = f"missing field `{missing[1]}`" if missing else match["message"]
    return f"{path}: {message} at line {line} column {column}"
