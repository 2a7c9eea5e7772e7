"""Parsers of function calls: what is read doesn't depend on how the text was cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.text.function_calls.call import FunctionCall
from tgi_cli.runtime.text.function_calls.formats import parser_for
from tgi_cli.runtime.text.function_calls.hermes import HermesParser
from tgi_cli.runtime.text.function_calls.llama3 import Llama3Parser
from tgi_cli.runtime.text.function_calls.mistral import MistralParser
from tgi_cli.runtime.text.function_calls.wrapped import WrappedCallReader, compact

NAMES = frozenset({"weather", "time-in"})
PARSERS = {"hermes": HermesParser, "llama3": Llama3Parser, "mistral": MistralParser}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)
calls = st.lists(st.tuples(st.sampled_from(sorted(NAMES)), objects), min_size=1, max_size=3)
fragments = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]"),
        *("[", "]", "{", "}", '"', "\\", ";", "weather", " ", "\n", "text", "é<"),
        '{"name": "weather", "arguments": {}}',
        '{"name": "nobody", "arguments": {}}',
        '{"name": "weather", "parameters": {"a": "</tool_call>"}}',
    ]
)


def read(kind: str, pieces: list[str]) -> list[str | FunctionCall]:
    """Return contents, joined, and calls, in their order."""
    parser = PARSERS[kind](NAMES)
    out = [piece for text in pieces for piece in parser.push(text)] + parser.flush()
    joined: list[str | FunctionCall] = []
    for piece in out:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def cut(text: str, places: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in itertools.pairwise(borders)]


def write(kind: str, calls: list[tuple[str, dict]], indent: int | None) -> str:
    key = "parameters" if kind == "llama3" else "arguments"
    bodies = [
        json.dumps({"name": name, key: arguments}, ensure_ascii=False, indent=indent)
        for name, arguments in calls
    ]
    match kind:
        case "hermes":
            return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)
        case "llama3":
            return "<|python_tag|>" + "; ".join(bodies)
        case _:
            return "[TOOL_CALLS] [" + ", ".join(bodies) + "]"


def arguments_of(pieces: list[str | FunctionCall]) -> list[tuple[str, dict]]:
    return [(p.name, json.loads(p.arguments)) for p in pieces if isinstance(p, FunctionCall)]


@pytest.mark.parametrize("kind", PARSERS)
@given(calls=calls, places=st.lists(st.integers(0, 999), max_size=8), indent=st.none() | st.just(1))
def test_calls_are_read_whole_however_they_are_cut(kind, calls, places, indent):
    text = write(kind, calls, indent)

    pieces = read(kind, cut(text, places))

    assert arguments_of(pieces) == calls
    assert len(pieces) == len(calls)  # and nothing else


@pytest.mark.parametrize("kind", PARSERS)
@given(text=st.lists(fragments, max_size=12).map("".join), places=st.lists(st.integers(0, 999)))
def test_how_a_text_is_cut_does_not_matter(kind, text, places):
    assert read(kind, cut(text, places)) == read(kind, [text]) == read(kind, list(text))


@pytest.mark.parametrize("kind", PARSERS)
@given(text=st.text(), places=st.lists(st.integers(0, 999), max_size=8))
def test_text_that_is_no_call_passes_unharmed(kind, text, places):
    assert read(kind, cut("So: " + text, places)) == ["So: " + text]


@pytest.mark.parametrize("kind", ["hermes", "mistral"])
def test_content_before_the_calls_is_kept_and_comes_at_once(kind):
    parser = PARSERS[kind](NAMES)

    first = parser.push("Let me look.\n")
    rest = parser.push(write(kind, [("weather", {"city": "Oslo"})], None)) + parser.flush()

    assert first == ["Let me look."]
    assert rest == [FunctionCall("weather", '{"city":"Oslo"}')]


def test_a_call_comes_when_it_is_whole_and_not_at_the_end():
    parser = MistralParser(NAMES)

    first = parser.push('[TOOL_CALLS][{"name": "weather", "arguments": {"a": 1}},')
    second = parser.push(' {"name": "weather", "arguments": {"a": 2}}')

    assert first == [FunctionCall("weather", '{"a":1}')]
    assert second == [FunctionCall("weather", '{"a":2}')]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("hermes", '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {}</tool_call> sorry'),
        ("hermes", "<tool_call>not JSON</tool_call>"),
        ("llama3", '{"name": "nobody", "parameters": {}}'),
        ("llama3", '{"answer": 42}'),
        ("llama3", '{"name": "weather"'),
        ("mistral", '[TOOL_CALLS][{"name": "nobody", "arguments": {}}]'),
    ],
)
def test_what_only_looks_like_a_call_is_content(kind, text):
    [piece] = read(kind, list(text))

    assert isinstance(piece, str)
    assert piece.removeprefix("[TOOL_CALLS][") in text
    assert "name" in piece or "not JSON" in piece or "answer" in piece


@pytest.mark.parametrize(
    "text",
    [
        '[TOOL_CALLS]weather{"a": 1}',
        '[TOOL_CALLS]weather[ARGS]{"a": 1}',
        '[TOOL_CALLS]weather[CALL_ID]abc123[ARGS]{"a": 1}',
        '[TOOL_CALLS]{"name": "weather", "arguments": "{\\"a\\": 1}"}',
    ],
)
def test_mistrals_later_forms_are_read(text):
    assert read("mistral", list(text)) == [FunctionCall("weather", '{"a":1}')]


def test_a_call_after_a_broken_one_is_read():
    text = '<tool_call>{"name": </tool_call> no: <tool_call>{"name": "weather"}</tool_call>'

    *_, call = read("hermes", list(text))

    assert call == FunctionCall("weather", "{}")


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("{% if tools %}<tool_call>{% endif %}", HermesParser),
        ("{{ tools }}[TOOL_CALLS]", MistralParser),
        ("{{ tools }}<|python_tag|>", Llama3Parser),
        ("{{ tools }}", None),
        ("<tool_call>", None),  # it never writes down which functions there are
        ("", None),
    ],
)
def test_the_template_tells_the_form(template, parser):
    assert parser_for(template) is parser


@given(
    arguments=objects, places=st.lists(st.integers(0, 999), max_size=20), indent=st.integers(0, 2)
)
def test_streamed_arguments_are_always_one_json_object(arguments, places, indent):
    arguments.pop("_name", None)
    text = json.dumps({"function": {"_name": 'we"ather', **arguments}}, indent=indent or None)
    reader = WrappedCallReader()

    streamed = [reader.push(piece) for piece in cut(text, places)]

    assert reader.name == 'we"ather'
    assert reader.is_complete
    assert json.loads("".join(streamed)) == arguments
    assert json.loads(compact("".join(streamed))) == arguments


def test_nothing_is_given_before_the_name_is_known():
    reader = WrappedCallReader()

    before = [reader.push(piece) for piece in ['{"function"', ': {"_name": "weat', "her"]]
    at_name = reader.push('"')
    rest = [reader.push(piece) for piece in [",", ' "a": ', '{"b": "}"}', "}", "}"]]

    assert before == ["", "", ""]
    assert at_name == "{"
    assert rest == ["", ' "a": ', '{"b": "}"}', "}", ""]


def test_compact_keeps_numbers_and_strings_as_they_are():
    assert (
        compact('{ "a b" : 1e400 ,\n"c" : [ 1.0 , " \\" x " ] }')
        == '{"a b":1e400,"c":[1.0," \\" x "]}'
    )
