"""Messages as a client sends them to messages as a chat template reads them.

Content is a string there, its parts joined. A template that knows `tool_calls` gets them with
arguments as objects, as its author tested it; for one that doesn't, they are text
(spec/http-api.md section 10.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tgi_cli.runtime.router.schemas.chat import ChatMessage, ImagePart
from tgi_cli.runtime.router.schemas.tools import MessageToolCall
from tgi_cli.runtime.router.validation import image_not_supported

Json = dict[str, Any]


def template_messages(messages: Sequence[ChatMessage], template: str) -> list[Json]:
    """Return `messages` for `template`.

    Raises:
        ValidationError: one has an image.
    """
    knows_calls = "tool_calls" in template
    return [_message(message, knows_calls=knows_calls) for message in messages]


def _message(message: ChatMessage, *, knows_calls: bool) -> Json:
    content = _text(message)
    calls = message.tool_calls or []
    if calls and not knows_calls:
        content = "\n".join(filter(None, (content, _calls_as_text(calls))))
    result: Json = {"role": message.role, "content": content}
    if calls and knows_calls:
        result["tool_calls"] = [_call(call) for call in calls]
    if message.tool_call_id is not None:
        result["tool_call_id"] = message.tool_call_id
    if message.role == "tool" and message.name is not None:
        result["name"] = message.name  # of the function; other names TGI keeps from templates
    return result


def _text(message: ChatMessage) -> str | None:
    if not isinstance(message.content, list):
        return message.content
    texts = []
    for part in message.content:
        if isinstance(part, ImagePart):
            raise image_not_supported()
        texts.append(part.text)
    return "".join(texts)


def _call(call: MessageToolCall) -> Json:
    function = {"name": call.function.name, "arguments": _arguments(call)}
    return {"id": call.id, "type": "function", "function": function}


def _arguments(call: MessageToolCall) -> Any:
    """Return the arguments as an object, or as they are if they are the text of none."""
    function = call.function
    arguments = function.parameters if function.arguments is None else function.arguments
    if arguments is None:
        return {}
    if isinstance(arguments, str):
        try:
            decoded = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            return arguments
        return decoded if isinstance(decoded, dict) else arguments
    return arguments


def _calls_as_text(calls: list[MessageToolCall]) -> str:
    """Return the calls as TGI writes them, with arguments as JSON text."""
    shown = []
    for call in calls:
        arguments = _arguments(call)
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        function = {
            "description": call.function.description,
            "name": call.function.name,
            "arguments": arguments,
        }
        shown.append({"id": call.id, "type": call.type or "function", "function": function})
    return msgspec.json.encode(shown).decode()
