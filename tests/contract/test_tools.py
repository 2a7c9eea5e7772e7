"""Tools of `/v1/chat/completions`: spec/http-api.md section 11, and docs/adr/0007."""

from __future__ import annotations

import json
import re

import pytest

from tests.builders.router import Client, answering, ids_of, serving
from tests.builders.tokenizers import END

ROUTE = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Look outside", "parameters": SCHEMA},
}
TIME = {"type": "function", "function": {"name": "time"}}  # no description, no parameters
CHAT = {"messages": [USER], "tools": [WEATHER, TIME], "temperature": 0}
CALL = '{"function": {"_name": "weather", "city": "Oslo",\n "days": 2}}'
NO_TOOL = '{"function": {"_name": "no_tool"}}'
ROOMY = {"max_input_tokens": 4000, "max_total_tokens": 5000}
HERMES = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}<tool_call>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    f"{END}{{% endfor %}}<|assistant|>"
)
DEFAULT_PROMPT = (
    "\nGiven the functions available, please respond with a JSON for a function call with its "
    "proper arguments that best answers the given prompt. Respond in the format {name: function "
    "name, parameters: dictionary of argument name and its value}.Do not use variables.\n"
)
NO_TOOL_SHOWN = {
    "type": "function",
    "function": {
        "description": "Open ended response with no specific tool selected",
        "name": "no_tool",
        "arguments": '{"type":"object","properties":{},"required":[]}',
    },
}


def tools_server(*replies: str, **options):
    return serving(answering(*replies), limits=ROOMY, **options)


async def prompt_of(client: Client, body: dict) -> str:
    status, _, reply = await client.post("/chat_tokenize", body)
    assert status == 200, reply
    return reply["templated_text"]


def calls_in(events: list) -> list[dict]:
    return [c for e in events for ch in e["choices"] for c in ch["delta"].get("tool_calls", ())]


async def test_a_call_is_told_as_tgi_tells_it():
    async with tools_server(CALL) as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, "logprobs": True})

    assert status == 200
    [choice] = reply["choices"]
    [call] = choice["message"].pop("tool_calls")
    assert choice["message"] == {"role": "assistant"}  # no content, not even null
    assert re.fullmatch(r"call_\w+", call.pop("id"))
    assert call == {
        "type": "function",
        "function": {
            "description": None,
            "name": "weather",
            "arguments": '{"city":"Oslo","days":2}',
        },
    }
    assert list(call["function"]) == ["description", "name", "arguments"]
    assert choice["finish_reason"] == "stop"
    assert "".join(t["token"] for t in choice["logprobs"]["content"]) == CALL + END


async def test_the_grammar_allows_exactly_the_functions():
    async with tools_server(CALL) as client:
        requests = client.record_requests()
        await client.post(ROUTE, {**CHAT, "tool_choice": "required"})

    schema = json.loads(requests[0].grammar.source)
    assert list(schema["$functions"]) == ["weather", "time"]
    assert schema["$functions"]["weather"] == {
        "type": "object",
        "description": "Look outside",
        "additionalProperties": False,
        "properties": {"_name": {"type": "string", "const": "weather"}, **SCHEMA["properties"]},
        "required": ["_name", "city"],
    }
    assert schema["$functions"]["time"]["description"] == ""
    assert schema["properties"]["function"]["anyOf"] == [
        {"$ref": "#/$functions/weather"},
        {"$ref": "#/$functions/time"},
    ]


@pytest.mark.parametrize(
    ("tool_choice", "names"),
    [
        (None, ["weather", "time", "no_tool"]),
        ("auto", ["weather", "time", "no_tool"]),
        ("required", ["weather", "time"]),
        ("time", ["time"]),
        ({"type": "function", "function": {"name": "weather"}}, ["weather"]),
    ],
)
async def test_the_choice_says_which_functions_there_are(tool_choice, names):
    async with tools_server(CALL.replace("weather", names[0])) as client:
        requests = client.record_requests()
        status, _, reply = await client.post(ROUTE, {**CHAT, "tool_choice": tool_choice})
        prompt = await prompt_of(client, {**CHAT, "tool_choice": tool_choice})

    assert status == 200, reply
    assert list(json.loads(requests[0].grammar.source)["$functions"]) == names
    assert [each["function"]["name"] for each in shown_in(prompt)] == names


def shown_in(prompt: str) -> list[dict]:
    return json.loads(prompt.partition("\n---\n")[2].partition("\n")[0])


@pytest.mark.parametrize("change", [{"tool_choice": "none"}, {"tools": []}, {"tools": None}])
async def test_no_tools_are_as_if_there_were_none(change):
    async with tools_server("Hello") as client:
        requests = client.record_requests()
        _, _, reply = await client.post(ROUTE, {**CHAT, **change})
        prompt = await prompt_of(client, {**CHAT, **change})

    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
    assert [request.grammar for request in requests] == [None]
    assert prompt == f"<|user|>Hi{END}<|assistant|>"


async def test_the_prompt_ends_with_tools_and_tgis_words():
    async with tools_server(CALL) as client:
        prompt = await prompt_of(client, CHAT)
        own = await prompt_of(client, {**CHAT, "tool_prompt": "Pick one."})
        empty = await prompt_of(client, {**CHAT, "tool_prompt": ""})

    arguments = json.dumps(SCHEMA, separators=(",", ":"))
    shown = [
        {
            "type": "function",
            "function": {"description": "Look outside", "name": "weather", "arguments": arguments},
        },
        {
            "type": "function",
            "function": {
                "description": None,
                "name": "time",
                "arguments": '{"type":"object","properties":{}}',
            },
        },
        NO_TOOL_SHOWN,
    ]
    text = json.dumps(shown, separators=(",", ":"))
    assert prompt == f"<|user|>Hi\n---\n{text}\n{DEFAULT_PROMPT}{END}<|assistant|>"
    assert own == f"<|user|>Hi\n---\n{text}\nPick one.{END}<|assistant|>"
    assert empty == prompt


async def test_a_template_that_knows_tools_gets_them_and_the_words_alone():
    template = "{% for t in tools %}{{ t.function.name }},{% endfor %}{{ messages[-1].content }}"
    async with tools_server(CALL, template=template) as client:
        prompt = await prompt_of(client, CHAT)

    assert prompt == f"weather,time,no_tool,Hi\n---\n{DEFAULT_PROMPT}"


async def test_a_last_message_of_calls_is_left_as_it_is():
    called = {"role": "assistant", "tool_calls": [{"id": "0", "function": {"name": "time"}}]}
    template = "{{ messages[-1].tool_calls[0].function.name }}{{ messages[-1].content or '' }}"
    async with tools_server(CALL, template=template) as client:
        prompt = await prompt_of(client, {**CHAT, "messages": [USER, called]})

    assert prompt == "time"


async def test_a_model_that_takes_no_tool_answers_in_words():
    async with tools_server(NO_TOOL, "Hello", template="{{ messages[-1].content }}") as client:
        before = await client.metric("tgi_request_count")
        body = {**CHAT, "logprobs": True}
        _, headers, reply = await client.post(ROUTE, body)
        counted = await client.metric("tgi_request_count") - before

    [choice] = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello"}
    assert choice["finish_reason"] == "stop"
    assert "".join(t["token"] for t in choice["logprobs"]["content"]) == "Hello" + END
    num_tokens = len(choice["logprobs"]["content"])
    assert reply["usage"] == {  # all of the second run, whose prompt is without tools
        "prompt_tokens": 2,
        "completion_tokens": num_tokens,
        "total_tokens": 2 + num_tokens,
    }
    assert headers["x-generated-tokens"] == str(num_tokens)
    assert counted == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_run_has_the_first_ones_permit(stream):
    async with serving(
        answering(NO_TOOL, "Hello"), limits={**ROOMY, "max_concurrent_requests": 1}
    ) as client:
        if stream:
            events = await client.stream(ROUTE, {**CHAT, "stream": True})
            text = "".join(e["choices"][0]["delta"]["content"] for e in events[:-1])
        else:
            _, _, reply = await client.post(ROUTE, CHAT)
            text = reply["choices"][0]["message"]["content"]
        assert client.router._service._permits.num_taken == 0

    assert text == "Hello"


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_call_that_was_cut_off_is_shown_as_text(is_named):
    cut = CALL[:40] if is_named else CALL[:20]
    async with tools_server(CALL) as client:
        body = {**CHAT, "max_tokens": len(ids_of(cut))}
        status, _, reply = await client.post(ROUTE, body)

    assert status == 200
    assert reply["choices"][0]["finish_reason"] == "length"
    content = reply["choices"][0]["message"]["content"]
    assert content == cut
    assert "tool_calls" not in reply["choices"][0]["message"]


async def test_a_streamed_call_has_tgis_events():
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    async with tools_server(CALL) as client:
        *events, usage, done = await client.stream(ROUTE, body)

    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > len(events)  # held tokens have no events
    assert events[0]["choices"][0]["delta"] == {
        "role": "assistant",
        "tool_calls": [
            {
                "index": 0,
                "id": "0",
                "type": "function",
                "function": {"name": "weather", "arguments": "{"},
            }
        ],
    }
    for event in events:
        delta = event["choices"][0]["delta"]
        assert "content" not in delta
        assert delta["role"] == "assistant"
        assert delta["tool_calls"][0]["id"] == "0"
        assert delta["tool_calls"][0]["type"] == "function"
    calls = calls_in(events)
    assert [call["function"]["name"] for call in calls[1:]] == [None] * (len(calls) - 1)
    assert "".join(c["function"]["arguments"] for c in calls) == '{ "city": "Oslo",\n "days": 2}'
    assert [e["choices"][0]["finish_reason"] for e in events] == [
        *[None] * (len(events) - 1),
        "tool_calls",
    ]
    assert calls[-1]["function"] == {"name": None, "arguments": ""}


async def test_a_streamed_call_that_is_cut_ends_with_its_reason():
    body = {**CHAT, "stream": True}
    async with tools_server(CALL) as client:
        in_arguments = {**body, "max_tokens": len(ids_of(CALL[:48]))}
        *events, _ = await client.stream(ROUTE, in_arguments)
        in_name = {**body, "max_tokens": len(ids_of(CALL[:20]))}
        *held, _ = await client.stream(ROUTE, in_name)

    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert calls_in(events[-1:])[0]["function"]["arguments"] != ""
    assert [
        (e["choices"][0]["delta"]["content"], e["choices"][0]["finish_reason"]) for e in held
    ] == [(CALL[:20], "length")]


async def test_a_stream_without_a_call_is_an_ordinary_one():
    async with tools_server(NO_TOOL, "Hello") as client:
        *events, _ = await client.stream(ROUTE, {**CHAT, "stream": True})

    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta["content"] for delta in deltas) == "Hello"
    assert not any("tool_calls" in delta for delta in deltas)
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("ids", "expected"), [(["0", "4"], "5"), ([], "0"), (["call_abc"], None), (["7", "x"], None)]
)
async def test_a_streamed_calls_id_follows_those_before(ids, expected):
    calls = [{"id": each, "type": "function", "function": {"name": "time"}} for each in ids]
    earlier = [{"role": "assistant", "content": "x", "tool_calls": calls}] if ids else []
    body = {**CHAT, "messages": [*earlier, USER], "stream": True}
    async with tools_server(CALL) as client:
        *events, _ = await client.stream(ROUTE, body)

    ids = {call["id"] for call in calls_in(events)}
    assert len(ids) == 1
    if expected is None:
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", ids.pop())
    else:
        assert ids == {expected}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tool_choice": "nobody"}, "Tool with name nobody not found"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "nobody"}}},
            "Tool with name nobody not found",
        ),
        (
            {"response_format": {"type": "json_object"}},
            "Grammar and tools are mutually exclusive",
        ),
        (
            {"response_format": {"type": "json_object"}, "tools": []},
            "Grammar and tools are mutually exclusive",
        ),
        ({"guided_regex": "a+"}, "Grammar and tools are mutually exclusive"),
    ],
)
async def test_tool_errors_have_their_texts(change, text, stream):
    async with tools_server(CALL) as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, **change, "stream": stream})

    assert (status, reply) == (422, {"error": f"Tool error: {text}", "error_type": "tool_error"})


async def test_plain_text_is_no_grammar():
    async with tools_server(CALL) as client:
        status, _, _ = await client.post(ROUTE, {**CHAT, "response_format": {"type": "text"}})

    assert status == 200


@pytest.mark.parametrize(
    "tools",
    ["x", [{}], [{"type": "function"}], [{"type": "function", "function": {}}],
     [{"type": "function", "function": {"name": "f", "parameters": "x"}}]],
)  # fmt: skip
async def test_malformed_tools_are_refused_with_their_place(tools):
    async with tools_server(CALL) as client:
        status, headers, text = await client.post(ROUTE, {**CHAT, "tools": tools})

    assert status == 422
    assert headers["content-type"].startswith("text/plain")
    assert text.startswith("Failed to deserialize the JSON body into the target type: tools")


async def test_definitions_of_a_tool_are_kept_for_its_references():
    parameters = {
        "$defs": {"Place": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Place"}}}},
        "properties": {"place": {"$ref": "#/$defs/Place"}},
    }
    tool = {"type": "function", "function": {"name": "go", "parameters": parameters}}
    async with tools_server('{"function": {"_name": "go"}}') as client:
        requests = client.record_requests()
        body = {**CHAT, "tools": [tool], "tool_choice": "required"}
        status, _, reply = await client.post(ROUTE, body)

    assert status == 200, reply
    schema = json.loads(requests[0].grammar.source)
    target = schema["$functions"]["go"]["properties"]["place"]["$ref"]
    found = schema
    for name in target.removeprefix("#/").split("/"):
        found = found[name]
    assert found["properties"]["next"] == {"$ref": target}


async def test_an_argument_may_not_take_the_names_place():
    tool = {
        "function": {"name": "f", "parameters": {"properties": {"_name": {}}}},
        "type": "function",
    }
    async with tools_server(CALL) as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, "tools": [tool]})

    assert status == 422
    assert reply["error_type"] == "tool_error"


async def test_every_choice_has_a_call_of_its_own():
    async with tools_server(CALL, CALL.replace("Oslo", "Rome")) as client:
        _, _, reply = await client.post(ROUTE, {**CHAT, "n": 2})
        *events, _ = await client.stream(ROUTE, {**CHAT, "n": 2, "stream": True})

    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    calls = [choice["message"]["tool_calls"][0]["function"] for choice in reply["choices"]]
    arguments = {call["arguments"] for call in calls}
    assert arguments == {'{"city":"Oslo","days":2}', '{"city":"Rome","days":2}'}
    for index, city in enumerate(["Oslo", "Rome"]):
        mine = [e for e in events if e["choices"][0]["index"] == index]
        joined = "".join(call["function"]["arguments"] for call in calls_in(mine))
        assert json.loads(joined) == {"city": city, "days": 2}


async def test_calls_and_their_results_reach_a_template_as_they_are():
    calls = [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
        }
    ]
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1", "name": "weather"},
    ]
    template = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{# tool_calls #}"
    async with tools_server("x", template=template) as client:
        prompt = await prompt_of(client, {"messages": messages})

    _, called, result = map(json.loads, prompt.splitlines())
    assert called == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Oslo"}},
            }
        ],
    }
    assert result == {
        "role": "tool",
        "content": "rain",
        "tool_call_id": "call_1",
        "name": "weather",
    }


async def test_a_template_that_knows_no_calls_reads_them_as_text():
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "parameters": {"a": 1}}}]
    messages = [{"role": "assistant", "content": "Let me see.", "tool_calls": calls}, USER]
    async with tools_server("x") as client:
        prompt = await prompt_of(client, {"messages": messages})

    text = (
        '[{"id":"1","type":"function","function":'
        '{"description":null,"name":"f","arguments":"{\\"a\\":1}"}}]'
    )
    assert f"<|assistant|>Let me see.\n{text}{END}" in prompt


HERMES_REPLY = (
    'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
    '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
)


async def test_a_strict_server_reads_calls_in_the_models_own_form():
    async with tools_server(HERMES_REPLY, template=HERMES, openai_strict=True) as client:
        requests = client.record_requests()
        prompt = await prompt_of(client, CHAT)
        _, _, reply = await client.post(ROUTE, CHAT)
        _, _, single = await client.post(ROUTE, {**CHAT, "parallel_tool_calls": False})

    assert prompt.startswith(json.dumps(WEATHER))  # as OpenAI has it, and no words of TGI's
    assert DEFAULT_PROMPT not in prompt
    assert requests[0].grammar is None
    [choice] = reply["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me look."
    first, second = choice["message"]["tool_calls"]
    assert first["function"]["arguments"] == '{"city":"Oslo"}'
    assert second["function"]["name"] == "time"
    assert first["id"] != second["id"]
    assert len(single["choices"][0]["message"]["tool_calls"]) == 1


async def test_a_strict_stream_tells_each_thing_once():
    async with tools_server(HERMES_REPLY, template=HERMES, openai_strict=True) as client:
        *events, _ = await client.stream(ROUTE, {**CHAT, "stream": True})

    deltas = [event["choices"][0]["delta"] for event in events]
    assert [delta.get("role") for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    assert "".join(delta.get("content", "") for delta in deltas) == "Let me look."
    calls = calls_in(events)
    assert [(call["index"], call["function"]["name"]) for call in calls] == [
        (0, "weather"),
        (1, "time"),
    ]
    assert deltas[-1] == {}
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_strict_server_holds_a_required_call_to_the_grammar():
    body = {**CHAT, "tool_choice": "required"}
    async with tools_server(CALL, template=HERMES, openai_strict=True) as client:
        requests = client.record_requests()
        _, _, reply = await client.post(ROUTE, body)
        *events, _ = await client.stream(ROUTE, {**body, "stream": True})

    assert requests[0].grammar is not None
    [choice] = reply["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    calls = calls_in(events)
    assert calls[0]["id"].startswith("call_")
    assert all(set(call) == {"index", "function"} for call in calls[1:])
    assert all(set(call["function"]) == {"arguments"} for call in calls[1:])
    joined = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(joined) == {"city": "Oslo", "days": 2}


async def test_by_default_a_template_with_its_own_form_is_used_in_tgis_way():
    async with tools_server(CALL, template=HERMES) as client:
        requests = client.record_requests()
        await client.post(ROUTE, CHAT)
        prompt = await prompt_of(client, CHAT)

    assert requests[0].grammar is not None
    assert prompt.count("no_tool") == 1
    assert DEFAULT_PROMPT in prompt


async def test_a_strict_server_takes_tgis_way_where_the_request_is_worded_for_it():
    body = {**CHAT, "tool_prompt": "Pick one."}
    async with tools_server(CALL, template=HERMES, openai_strict=True) as client:
        requests = client.record_requests()
        _, _, reply = await client.post(ROUTE, body)
        prompt = await prompt_of(client, body)

    assert requests[0].grammar is not None
    assert "\n---\nPick one." in prompt
    assert reply["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "weather"


async def test_without_grammars_only_the_models_own_way_is_left():
    options = {"template": HERMES, "supports_grammars": False}
    async with tools_server(CALL, **options) as client:
        status, _, refused = await client.post(ROUTE, CHAT)
    async with tools_server(HERMES_REPLY, **options, openai_strict=True) as client:
        _, _, reply = await client.post(ROUTE, CHAT)

    assert status == 422
    assert refused["error"] == "Input validation error: grammar is not supported"
    assert len(reply["choices"][0]["message"]["tool_calls"]) == 2


async def test_a_client_that_leaves_in_the_second_run_frees_its_permit():
    script = answering(NO_TOOL, "Hello" * 200, step_s=0.001)
    body = {**CHAT, "stream": True}
    async with serving(script, limits=ROOMY) as client:
        async with client.session.post(client.url + ROUTE, json=body) as reply:
            await reply.content.readline()  # of the second run: the first one has no events
        await client.router._service.wait_idle()

        assert client.router._service._permits.num_taken == 0
        assert await client.metric('tgi_request_failure{err="dropped"}') == 1


async def test_calls_after_which_more_might_have_come_say_so():
    body = {**CHAT, "max_tokens": len(ids_of(HERMES_REPLY)) - 3}
    async with tools_server(HERMES_REPLY, template=HERMES, openai_strict=True) as client:
        _, _, reply = await client.post(ROUTE, body)
        *events, _ = await client.stream(ROUTE, {**body, "stream": True})

    for choice in (reply["choices"][0], events[-1]["choices"][0]):
        assert choice["finish_reason"] == "length"
    assert reply["choices"][0]["message"]["content"] == "Let me look."  # and no half of a tag
    assert [c["function"]["name"] for c in calls_in(events)] == ["weather", "time"]
