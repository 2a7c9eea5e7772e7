"""Guided decoding: whatever the model's scores are, what it says matches the grammar."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.guided import (
    END_ID,
    finish,
    finish_counting,
    generate,
    guided_engine,
    guided_request,
    schema,
    text_of,
    tokens_of,
    wait_compiled,
)
from tgi_cli.runtime.text.json_schema import prepare_schema
from tgi_cli.runtime.types import FinishReason, Grammar

PERSON = schema(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 9},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }
)
EOS, LENGTH = FinishReason.EOS_TOKEN, FinishReason.LENGTH


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 1.7, "top_k": 5}])
@pytest.mark.parametrize("seed", range(5))
def test_json_output_validates(seed, sampling):
    text, reason = generate(PERSON, seed=seed, **sampling)

    assert reason is EOS
    jsonschema.validate(json.loads(text), json.loads(PERSON.source))
    assert list(json.loads(text)) == ["name", "age", "tags"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pattern", [r"[a-c]{2,5}-\d+x", "^(yes|no)$", r"é+|日本", r"\w\s\W", "a?"])
def test_regex_matches_the_whole_output(pattern, seed):
    text, reason = generate(Grammar("regex", pattern), seed=seed, max_new_tokens=200)

    assert reason is EOS
    assert re.fullmatch(pattern, text, re.ASCII)


@pytest.mark.parametrize("seed", range(3))
def test_choice_is_one_of_the_choices(seed):
    choices = ["yes", "no (a.b*c)", "ja/nein", "back\\slash", "new\nline", "日本", "y"]

    text, reason = generate(Grammar("choice", json.dumps(choices)), seed=seed)

    assert reason is EOS
    assert text in choices


def test_lark_grammar_with_recursion():
    grammar = Grammar("lark", 'start: "(" start ")" | "x"')

    text, reason = generate(grammar, closing=0.0)

    assert reason is EOS
    assert re.fullmatch(r"\(*x\)*", text)
    assert text.count("(") == text.count(")")


_leaves = st.one_of(
    st.sampled_from(
        [
            {"type": "null"},
            {"type": "boolean"},
            {"type": "integer", "minimum": -7, "maximum": 1000},
            {"type": "number", "minimum": 0, "exclusiveMaximum": 3.5},
            {"type": "string", "maxLength": 6},
            {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-d]*$"},
            {"type": "string", "format": "date"},
            {"type": ["string", "null"], "maxLength": 3},
            {"const": {"k": [1, "two"]}},
            {"$ref": "#/$defs/shared"},
        ]
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(
            st.one_of(st.none(), st.integers(-99, 99), st.text(max_size=5)), min_size=1, max_size=4
        ),
    ),
)


def _object_of(children: dict[str, Any], num_required: int, extra: Any) -> dict[str, Any]:
    names = list(children)
    node = {"type": "object", "properties": children, "required": names[:num_required]}
    if extra is not None:
        node["additionalProperties"] = extra
    return node


_schemas = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(
            _object_of,
            st.dictionaries(st.text(min_size=1, max_size=6), inner, min_size=1, max_size=3),
            st.integers(0, 3),
            st.sampled_from([None, False, {"type": "null"}]),
        ),
        st.builds(
            lambda items, low: {
                "type": "array", "items": items, "minItems": low, "maxItems": low + 2
            },
            inner,
            st.integers(0, 2),
        ),
        st.builds(lambda nodes: {"anyOf": nodes}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda nodes: {"type": "array", "prefixItems": nodes, "items": False,
                           "minItems": len(nodes)},
            st.lists(inner, min_size=1, max_size=3),
        ),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_schemas, st.integers(0, 1 << 30), st.booleans())
def test_output_of_any_schema_validates_or_was_cut(node, seed, samples):
    root = {**node, "$defs": {"shared": {"type": "array", "items": {"type": "boolean"}}}}
    narrowed = json.loads(json.dumps(root))
    prepare_schema(narrowed)

    text, reason = generate(schema(narrowed), seed=seed, max_new_tokens=400, do_sample=samples)

    assert reason in (EOS, LENGTH)
    if reason is EOS:
        jsonschema.Draft202012Validator(root).validate(json.loads(text))


def test_output_is_cut_at_the_limit_of_new_tokens():
    text, reason = generate(PERSON, max_new_tokens=4)

    assert reason is LENGTH
    assert text.startswith("{")


def test_masked_tokens_have_no_share_of_the_probability():
    engine = guided_engine()
    engine.add(guided_request(Grammar("regex", "ab"), do_sample=True))

    outputs = finish(engine)[0]

    assert [output.logprobs[0] for output in outputs] == pytest.approx([0.0] * len(outputs))
    assert tokens_of(outputs)[-1] == END_ID


def test_end_of_sequence_waits_for_the_grammar_and_min_tokens_gives_way():
    engine = guided_engine(closing=50.0)
    engine.add(guided_request(Grammar("regex", "a{3}"), 0, min_tokens=40))
    engine.add(guided_request(Grammar("regex", "a{3}b*"), 1, min_tokens=7))

    outputs = finish(engine)

    assert text_of(outputs[0]) == "aaa"
    assert text_of(outputs[1]) == "aaabbbb"
    assert outputs[1][-1].finish_reason is EOS


def test_output_that_ignores_the_end_still_ends_where_nothing_else_may_follow():
    engine = guided_engine(closing=50.0)
    engine.add(guided_request(Grammar("regex", "(ab)?c?"), ignore_eos=True))

    outputs = finish(engine)[0]

    assert text_of(outputs)
    assert tokens_of(outputs)[-1] == END_ID
    assert tokens_of(outputs).count(END_ID) == 1
    assert outputs[-1].finish_reason is EOS


def test_model_without_an_end_of_sequence_ends_with_the_last_token_of_its_grammar():
    engine = guided_engine(eos_token_ids=())
    engine.add(guided_request(Grammar("regex", "x[yz]"), 0))
    engine.add(guided_request(PERSON, 1))

    outputs = finish(engine)

    assert re.fullmatch("x[yz]", text_of(outputs[0]))
    assert END_ID not in tokens_of(outputs[0])
    assert outputs[0][-1].finish_reason is EOS
    jsonschema.validate(json.loads(text_of(outputs[1])), json.loads(PERSON.source))


def test_any_of_several_ends_of_sequence_ends_the_output():
    engine = guided_engine(eos_token_ids=(END_ID, 17))
    engine.add(guided_request(Grammar("regex", "ab"), logit_bias={17: 100.0, END_ID: -100.0}))

    outputs = finish(engine)[0]

    assert tokens_of(outputs)[-1] == 17
    assert outputs[-1].finish_reason is EOS


def _mixed_requests() -> list[Any]:
    return [
        guided_request(PERSON, 0, max_new_tokens=100),
        guided_request(None, 1, max_new_tokens=23, ignore_eos=True),
        guided_request(PERSON, 2, max_new_tokens=100, do_sample=True, seed=5, temperature=1.3),
        guided_request(
            Grammar("regex", "[a-f]{45,50}"), 3, max_new_tokens=100, repetition_penalty=1.2
        ),
        guided_request(None, 4, do_sample=True, seed=9, max_new_tokens=61, ignore_eos=True),
    ]


def _alone() -> dict[int, list[int]]:
    tokens = {}
    for request in _mixed_requests():
        engine = guided_engine()
        engine.add(request)
        tokens[request.request_id] = tokens_of(finish(engine)[request.request_id])
    return tokens


@pytest.mark.parametrize("num_blocks", [2000, 30])
def test_guided_and_unguided_requests_are_what_they_are_alone(num_blocks):
    engine = guided_engine(num_blocks=num_blocks, max_total_tokens=110, reserved_new_tokens=1)
    for request in _mixed_requests():
        engine.add(request)

    outputs, num_preempted = finish_counting(engine)

    assert {i: tokens_of(outputs[i]) for i in outputs} == _alone()
    assert (num_preempted > 0) == (num_blocks == 30)


@pytest.mark.parametrize("num_kept", [1, 6, 13])
def test_resumed_request_goes_on_as_if_nothing_had_happened(num_kept):
    engine = guided_engine()
    engine.add(guided_request(PERSON))
    whole = tokens_of(finish(engine)[0])

    resumed = guided_engine()
    resumed.add(guided_request(PERSON, output_ids=whole[:num_kept]))
    rest = tokens_of(finish(resumed)[0])

    assert whole[:num_kept] + rest == whole


def test_resumed_output_that_does_not_match_fails_alone():
    engine = guided_engine()
    engine.add(guided_request(Grammar("regex", "ab"), 0, output_ids=[7, 9]))
    engine.add(guided_request(Grammar("regex", "ab"), 1))
    wait_compiled(engine)

    step = engine.step()

    assert [failure.request_id for failure in step.failures] == [0]
    assert text_of(finish(engine)[1]) in ("ab", "b")  # its first token may be in `step`


def test_request_waits_for_its_grammar_while_others_go_on():
    engine = guided_engine()
    release = threading.Event()
    engine._guides._compiler.submit(release.wait, 60)  # the thread is at work on something hard
    engine.add(guided_request(Grammar("regex", "ab"), 0))
    engine.add(guided_request(None, 1, max_new_tokens=3, ignore_eos=True))

    steps = [engine.step() for _ in range(3)]
    has_work, is_compiling = engine.has_work, engine.is_compiling
    release.set()
    outputs = finish(engine)

    assert [output.request_id for step in steps for output in step.outputs] == [1, 1, 1]
    assert steps[0].stats.num_waiting == 1
    assert is_compiling
    assert not has_work
    assert text_of(outputs[0]) == "ab"


def test_request_that_is_aborted_while_its_grammar_compiles_is_forgotten():
    engine = guided_engine()
    engine.add(guided_request(Grammar("regex", "ab"), 0))

    engine.abort(0)

    assert not engine.is_compiling
    assert not engine.has_work


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", "("),
        Grammar("json_schema", "nonsense"),
        Grammar("choice", "nonsense"),
        Grammar("lark", "start: start"),
    ],
)
def test_grammar_that_the_router_should_have_refused_fails_alone(grammar):
    engine = guided_engine()
    engine.add(guided_request(grammar, 0))
    engine.add(guided_request(None, 1, max_new_tokens=5, ignore_eos=True))
    wait_compiled(engine)

    step = engine.step()
    rest = finish(engine)

    assert [failure.request_id for failure in step.failures] == [0]
    assert "grammar" in step.failures[0].message
    assert len(tokens_of(rest[1])) == 4
    assert not engine._guides._matchers


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", "(.{1,100}){1,100}x"),
        Grammar("lark", 'start: start start start | /[a-z]/ | ""'),
    ],
)
def test_grammar_that_gets_too_expensive_on_the_way_fails_alone(grammar, monkeypatch):
    monkeypatch.setattr("tgi_cli.runtime.text.grammar._MAX_ITEMS_PER_MASK", 300)
    engine = guided_engine(closing=-50.0)
    engine.add(guided_request(grammar, 0))
    engine.add(guided_request(Grammar("regex", "[ab]{30}"), 1))
    failures, texts = [], []

    for _ in range(60):
        wait_compiled(engine)
        if engine.has_work:
            step = engine.step()
            failures += step.failures
            texts += [output for output in step.outputs if output.request_id == 1]

    assert [failure.request_id for failure in failures] == [0]
    assert "can't be followed any further" in failures[0].message
    assert re.fullmatch("[ab]{30}", text_of(texts))


def test_engine_without_a_tokenizer_refuses_grammars():
    engine = guided_engine(tokenizer_json="")
    engine.add(guided_request(Grammar("regex", "a")))

    step = engine.step()

    assert step.failures[0].message == "Server error: this engine guides no output"


def test_compiled_grammars_are_kept_and_bounded(monkeypatch):
    monkeypatch.setattr("tgi_cli.runtime.engine.grammar.guides._MAX_COMPILED", 2)
    engine = guided_engine()
    for index in range(4):
        engine.add(guided_request(Grammar("regex", "a" * (1 + index // 2)), index))
        finish(engine)
    kept = dict(engine._guides._compiled)

    engine.add(guided_request(Grammar("regex", "aaa"), 9))
    finish(engine)

    assert [grammar.source for grammar in kept] == ["a", "aa"]
    assert [grammar.source for grammar in engine._guides._compiled] == ["aa", "aaa"]
    assert engine._guides._compiled[Grammar("regex", "aa")] is kept[Grammar("regex", "aa")]


def test_masks_are_there_even_if_their_thread_has_no_time():
    engine = guided_engine()
    release = threading.Event()
    engine._guides._masker.submit(release.wait, 60)
    engine.add(guided_request(Grammar("regex", "ab"), 0))

    outputs = finish(engine)[0]
    release.set()

    assert text_of(outputs) == "ab"
