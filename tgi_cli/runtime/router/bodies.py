"""Read and decode request bodies, and refuse them as TGI does (spec/http-api.md section 2.1).

These replies are plain text, not JSON: clients know them by their prefix and status.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from aiohttp import web

from tgi_cli.runtime.router.json_bounds import (
    MAX_DEPTH,
    MAX_NUMBERS,
    TooDeep,
    TooManyValues,
    check_bounds,
)
from tgi_cli.runtime.router.schemas.common import HasAliases

BODY_TIME_LIMIT_S = 60.0  # for a whole body; who sends one byte at a time holds nothing for long
DESERIALIZE = "Failed to deserialize the JSON body into the target type: "
_PARSE = "Failed to parse the request body as JSON: "
_BUFFER = "Failed to buffer the request body: "

Body = TypeVar("Body", bound=msgspec.Struct)

_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json", re.IGNORECASE)
_ERROR_PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_NULL = msgspec.Raw(b"null")
_decoders: dict[type[msgspec.Struct], msgspec.json.Decoder[msgspec.Struct]] = {}


class BodyError(Exception):
    """A body that can't be taken; the reply is ready."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


async def read_body(request: web.Request, kind: type[Body]) -> Body:
    """Return the decoded body. Raises `BodyError`."""
    return decode_body(await read_raw(request), kind)


async def read_raw(request: web.Request, *, max_numbers: int = MAX_NUMBERS) -> bytes:
    """Return the body's bytes, which may be no JSON but are safe to decode. Raises `BodyError`."""
    if not _JSON_TYPE.fullmatch(request.content_type if "Content-Type" in request.headers else ""):
        raise BodyError(415, "Expected request with `Content-Type: application/json`")
    if (request.content_length or 0) > request.client_max_size:
        raise _too_long()
    try:
        async with asyncio.timeout(BODY_TIME_LIMIT_S):
            raw = await request.read()
        check_bounds(raw, max_numbers)
    except web.HTTPRequestEntityTooLarge as exc:
        raise _too_long() from exc
    except TimeoutError as exc:
        raise BodyError(408, f"{_BUFFER}it took more than {BODY_TIME_LIMIT_S:g} s") from exc
    except web.RequestPayloadError as exc:
        raise BodyError(400, f"{_BUFFER}its encoding is broken") from exc
    except TooDeep as exc:
        raise BodyError(400, f"{_PARSE}more than {MAX_DEPTH} levels of nesting") from exc
    except TooManyValues as exc:
        raise BodyError(422, f"{DESERIALIZE}body: too many values") from exc
    return raw


def _too_long() -> BodyError:
    return BodyError(413, f"{_BUFFER}length limit exceeded")


def decode_body(raw: bytes, kind: type[Body], *, where: str = "") -> Body:
    """Return `raw` as `kind`. `where` leads to `raw` if it is a part of a body. Raises `BodyError`.

    `raw` comes from `read_raw`.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        body = decoder.decode(raw)
        if isinstance(body, HasAliases):
            body.settle_aliases(raw)
    except msgspec.ValidationError as exc:
        raise BodyError(422, DESERIALIZE + _describe(str(exc), raw, where)) from exc
    except msgspec.DecodeError as exc:
        raise BodyError(400, f"{_PARSE}{exc}") from exc
    except UnicodeDecodeError as exc:
        raise BodyError(400, f"{_PARSE}invalid UTF-8") from exc
    return body  # type: ignore[return-value]


class _Keys(msgspec.Struct):
    """Which of the keys that tell kinds of bodies apart are there."""

    inputs: msgspec.Raw = _NULL
    messages: msgspec.Raw = _NULL
    prompt: msgspec.Raw = _NULL


def decode_first(
    raw: bytes, kinds: Mapping[str, type[msgspec.Struct]], *, where: str = ""
) -> msgspec.Struct:
    """Return `raw` as the first of `kinds`, by the key that each must have, which it is.

    Raises `BodyError`: of the first kind whose key is there, or for none of the keys.
    """
    keys = decode_body(raw, _Keys, where=where)
    first_error = None
    for key, kind in kinds.items():
        if bytes(getattr(keys, key)) == b"null":
            continue
        try:
            return decode_body(raw, kind, where=where)
        except BodyError as exc:
            first_error = first_error or exc
    wanted = " or ".join(f"`{key}`" for key in kinds)
    raise first_error or BodyError(422, f"{DESERIALIZE}{where or 'body'}: missing field {wanted}")


def _describe(error: str, raw: bytes, where: str) -> str:
    """Turn "Expected `int`, got `str` - at `$.a.b`" into "a.b: expected … at line L column C"."""
    match = _ERROR_PATH.match(error)
    assert match is not None
    path = (match["path"] or "$").removeprefix("$").removeprefix(".")
    names = re.findall(r"[A-Za-z_]\w*", path)
    missing = re.search(r"missing required field `(\w+)`", error)
    position = 0
    for name in names:
        found = raw.find(b'"' + name.encode() + b'"', position)
        position = found if found >= 0 else position
    line = raw.count(b"\n", 0, position) + 1
    column = position - (raw.rfind(b"\n", 0, position) + 1) + 1
    message = f"missing field `{missing[1]}`" if missing else match["message"]
    place = ".".join(filter(None, (where, path))) or "body"
    return f"{place}: {message} at line {line} column {column}"
