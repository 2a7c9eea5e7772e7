from __future__ import annotations

import asyncio

import pytest

from tgi_cli.errors import MissingTemplateVariable, TemplateError
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.text.chat_template import ChatTemplate
from tgi_cli.runtime.text.template_worker import make_environment

USER = {"role": "user", "content": "Hi"}
CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)

BLOCKS = """
  {% for message in messages %}
    {% if message.role == 'user' %}
  User: {{ message.content }}
    {% else %}
  Model: {{ message | tojson(indent=1) }}
    {% endif %}
  {% endfor %}

{{ missing }}<model>
"""


def make(template: str | None, **limits: float) -> ChatTemplate:
    templates = {} if template is None else {"default": template}
    return ChatTemplate(
        TextAssets(
            tokenizer_json="{}", bos_token="<s>", eos_token="</s>", chat_templates=templates
        ),
        **limits,
    )


async def render(template: str | None, *messages: dict, limits: dict | None = None, **options):
    chat = make(template, **(limits or {}))
    try:
        return (await chat.render(messages or (USER,), **options)).text
    finally:
        await chat.close()


@pytest.mark.parametrize("template", [CHATML, LLAMA3, MISTRAL, BLOCKS])
async def test_rendering_equals_the_reference_renderer(template):
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [USER, {"role": "assistant", "content": " yes\n"}, {"role": "user", "content": "é"}]

    text = await render(template, *messages)

    expected, _ = render_jinja_template(
        [messages],
        chat_template=template,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert text == expected[0]


async def test_a_template_that_refuses_gives_its_reason_and_line():
    with pytest.raises(TemplateError) as caught:
        await render("\n{{ raise_exception('no system role') }}")

    assert caught.value.wire_text == (
        "Template error: syntax error: no system role (in <string>:2)"
    )


async def test_without_a_template_there_is_an_error():
    with pytest.raises(TemplateError, match="template not found"):
        await render(None)


async def test_a_missing_variable_is_named():
    with pytest.raises(MissingTemplateVariable) as caught:
        await render("{{ persona.name }}")

    assert caught.value.wire_text == "Missing template vatiable: persona"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(9) %}{% for j in range(99999) %}{% for k in range(99999) %}"
         "{% endfor %}{% endfor %}{% endfor %}", "longer than 0.5 s"),
        ("{{ 'a' * 10**10 }}", "memory"),
        ("{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}", "output is longer"),
        ("{{ range(10**9) }}", "OverflowError"),
        ("{{ ''.__class__.__mro__ }}", "undefined|SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% if %}", "syntax error"),
    ],
    ids=["loop", "memory", "output", "range", "escape", "mutation", "syntax"],
)  # fmt: skip
async def test_a_hostile_template_is_stopped_and_the_next_render_works(template, reason):
    chat = make(template, time_limit_s=0.5)
    try:
        with pytest.raises((TemplateError, MissingTemplateVariable)) as caught:
            await chat.render([USER])
        chat._templates = {"default": "{{ messages[0].content }}"}

        assert (await chat.render([USER])).text == "Hi"
    finally:
        await chat.close()
    if isinstance(caught.value, TemplateError):
        assert __import__("re").search(reason, caught.value.message)


async def test_a_cancelled_render_does_not_answer_the_next_one():
    chat = make("{{ messages[0].content }}")
    await chat.start()
    cancelled = asyncio.ensure_future(chat.render([{"role": "user", "content": "old"}]))
    await asyncio.sleep(0)
    cancelled.cancel()

    try:
        assert (await chat.render([{"role": "user", "content": "new"}])).text == "new"
    finally:
        await chat.close()


@pytest.mark.parametrize(
    ("continue_final_message", "end"), [(None, "The answer"), (False, "<|im_start|>assistant\n")]
)
async def test_a_last_message_of_the_assistant_is_continued(continue_final_message, end):
    answer = {"role": "assistant", "content": "The answer "}

    text = await render(CHATML, USER, answer, continue_final_message=continue_final_message)

    assert text.endswith(end)


def test_json_is_plain():
    template = make_environment().from_string("{{ value | tojson }}")

    assert template.render(value={"a": "<é'&>"}) == '{"a": "<é\'&>"}'


def test_generation_blocks_are_rendered_as_their_content():
    template = make_environment().from_string(
        "{% for m in messages %}{% generation %}{% set x = m %}{{ x }}"
        "{% endgeneration %}{% endfor %}"
    )

    assert template.render(messages=["a", "b"]) == "ab"


async def test_tools_choose_the_template_for_tools():
    chat = make("plain")
    chat._templates["tool_use"] = "{{ tools[0].name }}"
    try:
        without = await chat.render([USER])
        empty = await chat.render([USER], tools=[])
        with_tools = await chat.render([USER], tools=[{"name": "f"}])
    finally:
        await chat.close()

    assert (without.text, empty.text, with_tools.text) == ("plain", "plain", "f")


async def test_further_variables_reach_the_template_but_replace_none_of_ours():
    variables = {"style": "brief", "messages": "theirs", "bos_token": "theirs"}

    text = await render(
        "{{ style }} {{ messages[0].content }} {{ bos_token }}", variables=variables
    )

    assert text == "brief Hi <s>"


async def test_numbers_of_any_size_can_be_rendered():
    text = await render("{{ tools[0].n }}", tools=[{"n": 10**40}])

    assert text == str(10**40)
