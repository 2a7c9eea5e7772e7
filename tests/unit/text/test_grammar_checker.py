"""Grammars are compiled in a process of their own, within limits, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_asyncio

from tests.builders.tokenizers import byte_level_tokenizer
from tgi_cli.errors import ValidationError
from tgi_cli.runtime.text import grammar_checker
from tgi_cli.runtime.text.grammar_checker import GrammarChecker
from tgi_cli.runtime.types import Grammar

VOCAB_SIZE, END_ID = 301, 300


def make_checker(**options: Any) -> GrammarChecker:
    return GrammarChecker(byte_level_tokenizer().tokenizer_json, VOCAB_SIZE, (END_ID,), **options)


@pytest_asyncio.fixture
async def checker():
    checker = make_checker()
    yield checker
    await checker.close()


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


async def refusal(checker: GrammarChecker, grammar: Grammar) -> str:
    with pytest.raises(ValidationError) as caught:
        await checker.check(grammar)
    return caught.value.message


async def test_grammar_comes_back_ready_for_the_engine(checker):
    ready = await checker.check(schema({"properties": {"a": {"type": "null"}}}))

    assert json.loads(ready.source) == {
        "properties": {"a": {"type": "null"}}, "type": "object", "additionalProperties": False
    }  # fmt: skip


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", r"^[a-z]+@\d{3}/$"),
        Grammar("choice", '["yes", "no (a.b)", "ja/nein", "\\n", "日本"]'),
        Grammar("lark", 'start: "a" | start "b"'),
    ],
)
async def test_other_kinds_come_back_as_they_are(checker, grammar):
    assert await checker.check(grammar) == grammar


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (
            Grammar("regex", "ab(c"),
            "grammar is not valid: unclosed group at character 2 of the pattern",
        ),
        (
            Grammar("regex", "a(?=b)"),
            "grammar is not valid: look-around, including look-ahead and look-behind, "
            "is not supported at character 1 of the pattern",
        ),
        (Grammar("regex", "a^b"), "grammar is not valid: lookarounds not supported yet"),
        (Grammar("regex", "ab\\"), "grammar is not valid: incomplete escape sequence"),
        (
            Grammar("lark", "start: foo"),
            'grammar is not valid: unknown name: "foo" at line 1, column 8',
        ),
        (Grammar("lark", "start: start"), "grammar is not valid: nothing can match it"),
        (
            schema({"properties": {"a": {"type": "nul"}}}),
            "grammar is not valid: `type` must be one or several of the seven JSON types "
            "(at #/properties/a/type)",
        ),
        (
            schema({"properties": {"a": {"not": {}}}}),
            "cannot compile regex from schema: `not` is not supported (at #/properties/a/not)",
        ),
        (
            schema({"properties": {"a": {"items": {"type": "string", "pattern": "a("}}}}),
            "cannot compile regex from schema: unclosed group at character 1 of the pattern "
            "(at #/properties/a/items)",
        ),
        (
            schema({"$defs": {"x": {"type": "integer", "minimum": 3, "maximum": 2}},
                    "properties": {"a": {"$ref": "#/$defs/x"}}, "required": ["a"]}),
            "cannot compile regex from schema: Unsatisfiable schema",
        ),
        (
            schema({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
            "cannot compile regex from schema: `oneOf` whose branches could both match",
        ),
        (schema({"$ref": "#"}), "cannot compile regex from schema: nothing can match it (at #)"),
    ],
)  # fmt: skip
async def test_what_cannot_be_used_is_refused_with_its_place(checker, grammar, text):
    message = await refusal(checker, grammar)

    assert message.startswith(text), message
    assert "\n" not in message


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", "a{1000000000}"),  # starts well
        Grammar("lark", 'start: "a"{1000000}'),
        Grammar("regex", "ab" * 200_000),  # each token is a walk through the rest of it
        schema({"enum": ["x" * 300_000]}),
        schema({"properties": {f"p{i}": {"type": "integer"} for i in range(2000)}}),
    ],
)
async def test_what_would_fail_or_slow_down_later_is_refused_at_once(checker, grammar):
    assert await refusal(checker, grammar)


async def test_one_question_serves_all_requests_with_a_grammar(checker, monkeypatch):
    bad, good = Grammar("regex", "("), Grammar("regex", "a")
    first = await refusal(checker, bad)
    await checker.check(good)
    await checker.close()
    monkeypatch.setattr(checker, "_worker", None)  # whoever asks again fails

    assert await refusal(checker, bad) == first
    assert await checker.check(good) == good


async def test_what_is_remembered_is_bounded(checker, monkeypatch):
    monkeypatch.setattr(grammar_checker, "_MAX_REMEMBERED", 3)

    for length in range(1, 7):
        await checker.check(Grammar("regex", "a" * length))

    assert len(checker._remembered) == 3


async def test_check_that_takes_too_long_is_ended_and_the_next_one_works():
    checker = make_checker(time_limit_s=0.02)
    await checker.start()
    slow = Grammar("regex", "|".join(f"w{i}x{i}" for i in range(20_000)))

    message = await refusal(checker, slow)
    checker._worker._time_limit_s = 30.0
    good = await checker.check(Grammar("regex", "a"))
    await checker.close()

    assert message == "grammar is not valid: compiling it takes longer than 0.02 s"
    assert good.source == "a"


async def test_very_long_grammar_is_refused_unread(checker):
    grammar = Grammar("regex", "a" * (grammar_checker.MAX_SOURCE_CHARACTERS + 1))

    assert "longer than" in await refusal(checker, grammar)
    assert checker._worker._process is None


async def test_tokens_that_are_no_bytes_cannot_be_guided():
    checker = GrammarChecker('{"model": {"type": "WordLevel"}}', 10, (2,))

    reason = await checker.start()
    await checker.close()

    assert reason
