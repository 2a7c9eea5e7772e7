"""Tools and calls of them in `/v1/chat/completions`: spec/http-api.md section 11."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class FunctionDefinition(msgspec.Struct, kw_only=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON schema; none: no arguments
    arguments: dict[str, Any] | None = None  # what TGI's clients call `parameters`


class Tool(msgspec.Struct):
    type: str
    function: FunctionDefinition


class FunctionName(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct, kw_only=True):
    type: str | None = None
    function: FunctionName


class CalledFunction(msgspec.Struct, kw_only=True):
    """A call in an earlier message. Its arguments are an object, or the JSON text of one."""

    name: str
    description: str | None = None
    arguments: Any = None
    parameters: Any = None  # another name for `arguments`


class MessageToolCall(msgspec.Struct, kw_only=True):
    id: str | None = None
    type: str | None = None
    function: CalledFunction


class ReplyFunction(msgspec.Struct):
    description: None
    name: str
    arguments: str  # the JSON text of an object


class ReplyToolCall(msgspec.Struct):
    id: str
    type: str
    function: ReplyFunction


class DeltaFunction(msgspec.Struct):
    name: str | UnsetType | None
    arguments: str  # a fragment


class DeltaToolCall(msgspec.Struct):
    index: int
    id: str | UnsetType
    type: str | UnsetType
    function: DeltaFunction


class AssistantMessage(msgspec.Struct):
    role: str
    content: str | UnsetType | None = UNSET
    tool_calls: list[ReplyToolCall] | UnsetType = UNSET


class AssistantDelta(msgspec.Struct):
    """What an event of a stream adds to the message."""

    role: str | UnsetType
    content: str | UnsetType = UNSET
    tool_calls: list[DeltaToolCall] | UnsetType = UNSET
