"""How tools are described, and what is told of a call: spec/http-api.md sections 11.1 to 11.4."""

from __future__ import annotations

import json
import logging

import pytest

from tests.builders.router import answering, ids_of, serving
from tests.builders.tokenizers import END

ROUTE = "/v1/chat/completions"
PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
SCHEMA = {
    "type": "object", "title": "Weather", "minProperties": 1, "description": "not used",
    "properties": PROPERTIES, "required": ["city"], "additionalProperties": {"type": "null"},
}  # fmt: skip
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
CALL = '{"function": {"_name": "weather", "city": "Oslo"}}'
NO_TOOL = '{"function": {"_name": "no_tool"}}'


def tools_server(*replies: str, **options):
    roomy = {"max_input_tokens": 4000, "max_total_tokens": 5000}
    return serving(answering(*replies), limits=roomy, **options)


def tool(**function) -> dict:
    return {"type": "function", "function": {"name": "weather", **function}}


@pytest.mark.parametrize(
    "described",
    [
        tool(parameters=SCHEMA),
        tool(arguments=SCHEMA),  # TGI's other name
        {**tool(parameters=SCHEMA, strict=True), "strict": True},  # keys of OpenAI's
    ],
)
async def test_the_grammar_takes_properties_and_what_is_said_of_them(described):
    body = {**CHAT, "tools": [described], "tool_choice": "required"}
    async with tools_server(CALL) as client:
        requests = client.record_requests()
        status, _, reply = await client.post(ROUTE, body)

    assert status == 200, reply
    assert json.loads(requests[0].grammar.source)["$functions"]["weather"] == {
        "type": "object",
        "description": "",
        "additionalProperties": {"type": "null"},
        "properties": {"_name": {"type": "string", "const": "weather"}, **PROPERTIES},
        "required": ["_name", "city"],
    }


async def test_a_function_without_parameters_takes_no_arguments():
    body = {**CHAT, "tools": [tool()], "tool_choice": "weather"}
    async with tools_server('{"function": {"_name": "weather"}}') as client:
        requests = client.record_requests()
        _, _, reply = await client.post(ROUTE, body)

    function = json.loads(requests[0].grammar.source)["$functions"]["weather"]
    assert function["properties"].keys() == {"_name"}
    assert function["additionalProperties"] is False
    assert reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


async def test_only_references_are_led_to_where_a_tools_schema_is_kept():
    data = {"$ref": "#/nowhere"}
    parameters = {
        "properties": {"const": {"$ref": "#/$defs/a"}, "b": {"enum": [data], "default": data}},
        "$defs": {"a": {"type": "boolean"}},
    }
    body = {**CHAT, "tools": [tool(parameters=parameters)], "tool_choice": "required"}
    async with tools_server(CALL) as client:
        requests = client.record_requests()
        status, _, reply = await client.post(ROUTE, body)

    assert status == 200, reply
    properties = json.loads(requests[0].grammar.source)["$functions"]["weather"]["properties"]
    assert properties["const"] == {"$ref": "#/$defs/weather/$defs/a"}
    assert properties["b"]["enum"] == [data]


async def test_the_name_is_the_first_key_that_the_grammar_allows():
    body = {**CHAT, "tools": [tool(parameters=SCHEMA)]}
    async with tools_server(CALL) as client:
        requests = client.record_requests()
        await client.post(ROUTE, body)

    functions = json.loads(requests[0].grammar.source)["$functions"]
    assert functions["no_tool"]["description"] == (
        "Open ended response with no specific tool selected"
    )
    for function in functions.values():
        assert next(iter(function["properties"])) == "_name"
        assert function["required"][0] == "_name"


async def test_the_keys_of_the_arguments_keep_the_order_in_which_they_came():
    call = '{"function": {"_name": "weather", "days": 2, "city": "Oslo"}}'
    async with tools_server(call) as client:
        _, _, reply = await client.post(ROUTE, {**CHAT, "tools": [tool(parameters=SCHEMA)]})

    function = reply["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function["arguments"] == '{"days":2,"city":"Oslo"}'


async def test_an_answer_in_words_has_the_usage_and_events_of_its_own_run():
    body = {**CHAT, "tools": [tool()], "stream": True, "stream_options": {"include_usage": True}}
    async with tools_server(NO_TOOL, "Hello") as client:
        *events, usage, done = await client.stream(ROUTE, body)

    num_prompt, num_new = len(ids_of(f"<|user|>Hi{END}<|assistant|>")), len(ids_of("Hello")) + 1
    assert done == "[DONE]"
    assert len(events) == num_new  # nothing of the first run
    assert usage["usage"] == {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_new,
        "total_tokens": num_prompt + num_new,
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_of_a_call_is_in_the_usual_log(stream, caplog):
    caplog.set_level(logging.INFO)
    body = {**CHAT, "tools": [tool(parameters=SCHEMA)], "stream": stream}
    async with tools_server(CALL) as client:
        await client.post(ROUTE, body)

    assert caplog.records  # the request is
    assert "Oslo" not in caplog.text
    assert "_name" not in caplog.text


async def test_a_strict_server_leaves_the_stop_string_out_of_a_call_that_it_cut():
    body = {**CHAT, "tools": [tool()], "tool_choice": "required", "stop": "_na"}
    async with tools_server(CALL, openai_strict=True) as client:
        _, _, reply = await client.post(ROUTE, body)
        *events, _ = await client.stream(ROUTE, {**body, "stream": True})

    [choice] = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": '{"function": {"'}
    assert choice["finish_reason"] == "stop"
    assert "".join(e["choices"][0]["delta"]["content"] for e in events) == '{"function": {"'
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
