"""Which functions a chat may call, how the model is told, and what holds it to the form.

TGI's way: the model is shown the functions and a grammar lets it write nothing but a call of one,
`no_tool` being one of them where it may answer in words (spec/http-api.md sections 11.1, 11.2).
The model's own way: its template shows the functions as it was trained on them, and its text is
read for calls. Which is taken when: docs/adr/0007.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from tgi_cli.errors import ToolError
from tgi_cli.runtime.router.schemas.chat import ChatRequest
from tgi_cli.runtime.router.schemas.tools import FunctionDefinition, NamedTool
from tgi_cli.runtime.text.function_calls.call import MakeParser
from tgi_cli.runtime.text.function_calls.formats import parser_for

Json = dict[str, Any]

NO_TOOL = "no_tool"
_NO_TOOL = FunctionDefinition(
    name=NO_TOOL,
    description="Open ended response with no specific tool selected",
    parameters={"type": "object", "properties": {}, "required": []},
)
# Models answer differently to other words.
_DEFAULT_PROMPT = (
    "\nGiven the functions available, please respond with a JSON for a function call with its "
    "proper arguments that best answers the given prompt. Respond in the format {name: function "
    "name, parameters: dictionary of argument name and its value}.Do not use variables.\n"
)
# Keywords of a JSON schema that hold schemas by name, and those that hold no schemas.
_NAMED_SCHEMAS = frozenset(("properties", "patternProperties", "$defs", "definitions"))
_DATA = frozenset(("const", "enum", "default", "examples"))
_PLAIN_KEY = re.compile(r"[\w-]+", re.ASCII)


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """How a request uses its tools."""

    functions: list[FunctionDefinition]
    may_decline: bool = False  # `auto` in TGI's way: `no_tool` is offered too
    make_parser: MakeParser | None = None  # in the model's own way
    only_first_call: bool = False  # TGI's way gives one at most anyway

    @property
    def names(self) -> frozenset[str]:
        return frozenset(function.name for function in self.functions)

    @property
    def _offered(self) -> list[FunctionDefinition]:
        return [*self.functions, *([_NO_TOOL] if self.may_decline else [])]

    def grammar(self) -> Json:
        """Return what a call must match, in the form of `response_format`."""
        return {"type": "json_schema", "value": {"schema": _schema(self._offered)}}

    def shown(self) -> list[Json]:
        """Return the functions as the prompt has them."""
        form = _tgi_form if self.make_parser is None else _openai_form
        return [form(function) for function in self._offered]


def tool_use(body: ChatRequest, template: str, *, is_strict: bool) -> ToolUse | None:
    """Return how `body` uses its tools, or None if it has none or wants none.

    Raises:
        ToolError: it names a function that isn't there, or wants a grammar of its own too.
    """
    if body.tools is not None and _has_grammar(body):
        raise ToolError("Grammar and tools are mutually exclusive")
    choice = body.tool_choice
    if not body.tools or choice == "none":
        return None
    functions = [tool.function for tool in body.tools]
    if choice is None or choice == "auto":
        # Whoever words the request for a call wants TGI's way.
        make_parser = parser_for(template) if is_strict and not body.tool_prompt else None
        return ToolUse(
            functions=functions,
            may_decline=make_parser is None,
            make_parser=make_parser,
            only_first_call=body.parallel_tool_calls is False,
        )
    if choice == "required":
        return ToolUse(functions=functions)
    name = choice.function.name if isinstance(choice, NamedTool) else choice
    named = [function for function in functions if function.name == name]
    if not named:
        raise ToolError(
            f"Tool with name {name} not found", log_message="there is no tool of the name"
        )
    return ToolUse(functions=named[:1])


def with_tool_prompt(
    messages: list[Json], use: ToolUse, tool_prompt: str | None, template: str
) -> list[Json]:
    """Return `messages`, one at least, with the last one's end asking for a call in TGI's form."""
    text = tool_prompt or _DEFAULT_PROMPT
    if "tools" not in template:
        text = f"{msgspec.json.encode(use.shown()).decode()}\n{text}"
    *others, last = messages
    return [*others, {**last, "content": f"{last['content'] or ''}\n---\n{text}"}]


def _has_grammar(body: ChatRequest) -> bool:
    form = body.response_format
    guided = (body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar)
    return (form is not None and form.get("type") != "text") or any(
        value is not None for value in guided
    )


def _parameters(function: FunctionDefinition) -> Json:
    parameters = function.arguments if function.parameters is None else function.parameters
    return {"type": "object", "properties": {}} if parameters is None else parameters


def _openai_form(function: FunctionDefinition) -> Json:
    shown: Json = {"name": function.name}
    if function.description is not None:
        shown["description"] = function.description
    return {"type": "function", "function": {**shown, "parameters": _parameters(function)}}


def _tgi_form(function: FunctionDefinition) -> Json:
    arguments = msgspec.json.encode(_parameters(function)).decode()
    shown = {
        "description": function.description,
        "name": function.name,
        "arguments": arguments,
    }
    return {"type": "function", "function": shown}


def _schema(functions: Sequence[FunctionDefinition]) -> Json:
    """Return the schema of `{"function": {"_name": …, argument: …}}` for any of `functions`.

    A function's own `$defs`, and whatever else its references name, are kept under the root's.
    """
    called: Json = {}
    originals: Json = {}
    for function in functions:
        key = function.name if _PLAIN_KEY.fullmatch(function.name) else "function"
        while key in called:
            key += "_"
        parameters = _parameters(function)
        if _has_reference(parameters):
            parameters = originals[key] = _moved(parameters, f"#/$defs/{key}")
            parameters = _target(parameters, originals, key)
        called[key] = _call_schema(function, parameters)
    schema: Json = {
        "$functions": called,
        "type": "object",
        "properties": {"function": {"anyOf": [{"$ref": f"#/$functions/{key}"} for key in called]}},
        "required": ["function"],
        "additionalProperties": False,
    }
    return {**schema, "$defs": originals} if originals else schema


def _call_schema(function: FunctionDefinition, parameters: Json) -> Json:
    properties, required = parameters.get("properties"), parameters.get("required")
    properties = properties if isinstance(properties, dict) else {}
    if "_name" in properties:
        raise ToolError(
            f"Function {function.name} has an argument `_name`, which stands for its name",
            log_message="an argument is called `_name`",
        )
    return {
        "type": "object",
        "description": function.description or "",
        "additionalProperties": parameters.get("additionalProperties", False),
        "properties": {"_name": {"type": "string", "const": function.name}, **properties},
        "required": ["_name", *(required if isinstance(required, list) else [])],
    }


def _target(parameters: Json, originals: Json, key: str) -> Json:
    """Return the object that `parameters` say by a reference to one of their own definitions."""
    for _ in range(len(parameters)):
        path = parameters.get("$ref")
        if not isinstance(path, str) or not path.startswith(f"#/$defs/{key}/"):
            break
        found: Any = originals[key]
        for name in path.split("/")[3:]:
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            break
        parameters = found
    return parameters


def _has_reference(value: object) -> bool:
    if isinstance(value, dict):
        return "$ref" in value or any(map(_has_reference, value.values()))
    return isinstance(value, list) and any(map(_has_reference, value))


def _moved(schema: Any, root: str) -> Any:
    """Return a schema whose references to itself still hold after it was moved to `root`."""
    if isinstance(schema, list):
        return [_moved(inner, root) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    moved: Json = {}
    for key, inner in schema.items():
        if key == "$ref" and isinstance(inner, str) and inner.startswith("#"):
            moved[key] = root + inner[1:]
        elif key in _NAMED_SCHEMAS and isinstance(inner, dict):
            moved[key] = {name: _moved(each, root) for name, each in inner.items()}
        else:
            moved[key] = inner if key in _DATA else _moved(inner, root)
    return moved
