"""The process that renders chat templates: `python -m tgi_cli.runtime.text.template_worker`.

A template comes from a model repository and may loop for ever or build a huge string, and an
interpreter can't stop a thread. So rendering has a process of its own, with a memory limit, that
its parent kills when it takes too long. It reads framed JSON on stdin, answers on stdout, and
ends when stdin does.

The environment is the reference renderer's (transformers): both trims on, `break` and `continue`,
plain `tojson`, `{% generation %}`, and nothing mutable can be reached from a template.
"""

from __future__ import annotations

import datetime
import json
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tgi_cli.runtime.text.worker_process import frames, send_frame

MAX_OUTPUT_CHARS = 4 << 20
MAX_MEMORY_BYTES = 1 << 30


class RenderRequest(msgspec.Struct, array_like=True):
    template: str
    variables: dict[str, Any]


class RenderReply(msgspec.Struct, array_like=True):
    text: str | None
    error: str | None = None
    missing_variable: str | None = None


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}`: marks what the assistant said, for training. Here only a scope."""

    tags = {"generation"}  # noqa: RUF012  the base class declares it as a plain set

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class _Refused(Exception):
    """What a template raises by `raise_exception`."""


def make_environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _GenerationBlock],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _to_json(
    value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: object) -> NoReturn:
    raise _Refused(str(message))


def render(compiled: jinja2.Template, variables: dict[str, Any]) -> RenderReply:
    """Render within the output limit; whatever the template does wrong is in the reply."""
    parts: list[str] = []
    length = 0
    try:
        for part in compiled.generate(**variables):
            length += len(part)
            if length > MAX_OUTPUT_CHARS:
                return RenderReply(None, f"the output is longer than {MAX_OUTPUT_CHARS} characters")
            parts.append(part)
    except _Refused as exc:
        return RenderReply(None, f"syntax error: {exc} (in <string>:{_line(exc)})")
    except jinja2.UndefinedError as exc:
        name = str(exc).split("'")[1] if str(exc).endswith("is undefined") else None
        return RenderReply(None, f"{exc} (in <string>:{_line(exc)})", name)
    except MemoryError:
        return RenderReply(None, f"it needs more than {MAX_MEMORY_BYTES >> 20} MiB of memory")
    except Exception as exc:
        # A template can fail in any way that Python can.
        return RenderReply(None, f"{type(exc).__name__} (in <string>:{_line(exc)})")
    return RenderReply("".join(parts))


def _line(exc: BaseException) -> int:
    lines = [
        f.lineno or 0 for f in traceback.extract_tb(exc.__traceback__) if f.filename == "<template>"
    ]
    return lines[-1] if lines else 0


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    environment = make_environment()
    compiled: dict[str, jinja2.Template] = {}
    decode: Callable[[bytes], RenderRequest] = msgspec.json.Decoder(RenderRequest).decode
    for question in frames(source):
        request = decode(question)
        try:
            template = compiled.get(request.template)
            if template is None:
                template = compiled[request.template] = environment.from_string(request.template)
            reply = render(template, request.variables)
        except jinja2.TemplateSyntaxError as exc:
            reply = RenderReply(None, f"syntax error: {exc.message} (in <string>:{exc.lineno})")
        except (RecursionError, MemoryError) as exc:
            reply = RenderReply(None, f"the template can't be compiled ({type(exc).__name__})")
        send_frame(sink, msgspec.json.encode(reply))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)
