"""What a template is given, what becomes of its text: spec/http-api.md sections 10.2, 10.3."""

from __future__ import annotations

import datetime
import json

import msgspec
import pytest

from tests.builders.router import ASSETS, Client, ids_of, serving
from tests.builders.tokenizers import END

ROUTE = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
CALL = {"id": "7", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
DUMP = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{# tool_calls #}"


async def prompt_of(client: Client, *messages: dict, **body: object) -> str:
    status, _, reply = await client.post("/chat_tokenize", {"messages": messages or [USER], **body})
    assert status == 200, reply
    return reply["templated_text"]


async def render(template: str, *messages: dict, **body: object) -> str:
    async with serving(template=template) as client:
        return await prompt_of(client, *messages, **body)


# 10.2 Messages


async def test_a_speakers_name_is_not_shown_to_the_template():
    assert json.loads(await render(DUMP, {**USER, "name": "Bob"})) == USER


async def test_content_beside_calls_is_kept():
    message = {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]}

    shown = json.loads((await render(DUMP, message, USER)).splitlines()[0])

    assert shown["content"] == "Let me see."
    assert shown["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ({"name": "f", "parameters": {"a": 1}}, {"a": 1}),
        ({"name": "f", "arguments": {"a": 1}}, {"a": 1}),
        ({"name": "f", "arguments": "{}"}, {}),
        ({"name": "f"}, {}),
        ({"name": "f", "arguments": "no JSON"}, "no JSON"),
    ],
)
async def test_arguments_come_as_an_object_whatever_they_are_called(function, arguments):
    message = {"role": "assistant", "tool_calls": [{"function": function}]}

    shown = json.loads(await render(DUMP, message))

    assert shown["content"] is None
    assert shown["tool_calls"][0]["function"]["arguments"] == arguments


# 10.3 Template


async def test_a_template_has_the_variables_of_tgi():
    template = (
        "{{ bos_token }}|{{ eos_token }}|{{ add_generation_prompt }}|{{ tools is none }}|"
        "{% for m in messages %}{{ m.keys() | sort | join(',') }}{% endfor %}"
    )

    assert await render(template) == f"|{END}|True|True|content,role"
    assert await render(template, USER, {"role": "assistant", "content": "x"}) == (
        f"|{END}|True|True|content,rolecontent,role"  # a generation prompt even then
    )


async def test_a_template_can_use_what_templates_use():
    template = """
        {%- for c in 'abc'[::-1] %}
            {%- if c == 'a' %}{% break %}{% endif %}
            {%- generation %}{{ c.upper() }}{% endgeneration %}
        {%- endfor %}{{ missing }}{{ messages[0].get('x') is none }}{{ [1, 2] | tojson }}
    """

    assert await render(template) == "CBTrue[1, 2]\n    "


async def test_the_time_is_that_of_the_place():
    before = datetime.datetime.now()
    shown = await render("{{ strftime_now('%Y-%m-%d %H:%M') }}")
    after = datetime.datetime.now()

    assert shown in {f"{time:%Y-%m-%d %H:%M}" for time in (before, after)}


async def test_lines_of_blocks_leave_nothing_behind():
    template = "  {% if true %}\n  {{ messages[0].content }}\n  {% endif %}\nend"

    assert await render(template) == "  Hi\nend"  # TGI's engine trims neither side


async def test_json_in_a_template_is_plain():
    assert await render("{{ messages[0].content | tojson }}", {**USER, "content": "<é&'>"}) == (
        '"<é&\'>"'
    )


@pytest.mark.parametrize(
    ("template", "content", "prompt"),
    [
        # Also where the template closed the turn.
        ("{% for m in messages %}[{{ m.content }}]{% endfor %}>", "Yes ", "[Hi][Yes"),
        ("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}>", " Yes\n", "[Hi][Yes"),
        ("{% for m in messages %}[{{ m.content }}]{% endfor %}>", "Hi", "[Hi][Hi"),  # the last one
        ("{{ messages[0].content }} > ", "Yes", "Hi > "),  # it isn't there
        ("{{ messages[1].content }}<a>", "x a ", "x a"),  # with its space it is there once
        ("{{ messages[1].content }}> ", "", "> "),
    ],
)
async def test_the_final_message_is_cut_after_its_last_occurrence(template, content, prompt):
    assert await render(template, USER, {"role": "assistant", "content": content}) == prompt


async def test_a_special_token_in_a_final_message_is_text_too():
    message = {"role": "assistant", "content": f"a{END}b"}
    async with serving() as client:
        requests = client.record_requests()
        prompt = await prompt_of(client, USER, message)
        await client.post(ROUTE, {"messages": [USER, message], "max_tokens": 2})

    assert prompt == f"<|user|>Hi{END}<|assistant|>a{END}b"
    assert requests[0].prompt_ids.count(ids_of(END)[0]) == 1  # the one that ends the user's turn


async def test_special_tokens_in_whatever_a_client_sends_are_text():
    template = (
        "{{ messages[0].role }}{{ messages[0].content }}{{ tools[0].function.name }}"
        "{{ tools[0].function.arguments }}{{ hint }}" + END
    )
    tool = {"name": f"f{END}", "parameters": {"properties": {END: {}}}, "description": END}
    body = {
        "messages": [{"role": END, "content": [{"type": "text", "text": END}]}],
        "tools": [{"type": "function", "function": tool}],
        "tool_choice": f"f{END}",
        "tool_prompt": END,
        "chat_template_kwargs": {"hint": END},
        "max_tokens": 2,
    }
    async with serving(template=template, limits={"max_total_tokens": 500}) as client:
        _, _, shown = await client.post("/chat_tokenize", body)

    end = ids_of(END)[0]
    assert shown["templated_text"].count(END) == 7
    assert [token["id"] for token in shown["tokenize_response"]].count(end) == 1
    assert shown["tokenize_response"][-1]["id"] == end


async def test_named_templates_without_a_default_serve_tools_only():
    assets = msgspec.structs.replace(ASSETS, chat_templates={"tool_use": "{{ tools | length }}"})
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with serving(assets=assets) as client:
        status, _, reply = await client.post("/chat_tokenize", {"messages": [USER]})
        with_tools = await prompt_of(client, tools=tools, tool_choice="f")

    assert (status, reply["error"]) == (422, "Template error: template not found")
    assert with_tools == "1"


@pytest.mark.parametrize(
    ("template", "reply"),
    [
        (
            "{{ raise_exception('no system role') }}",
            {
                "error": "Template error: syntax error: no system role (in <string>:1)",
                "error_type": "template_error",
            },
        ),
        (
            "{{ persona.name }}",
            {
                "error": "Missing template vatiable: persona",  # TGI's spelling
                "error_type": "missing_template_variable",
            },
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_template_refuses_is_a_422(template, reply, stream):
    async with serving(template=template) as client:
        found = await client.post(ROUTE, {"messages": [USER], "stream": stream})

    assert (found[0], found[2]) == (422, reply)
