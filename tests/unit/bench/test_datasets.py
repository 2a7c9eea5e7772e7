"""Prompts from files of every form, each row once before any comes again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.bench_tokenizers import family_tokenizer
from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import LocalCodec
from tgi_cli.runtime.bench.datasets import read_dataset
from tgi_cli.runtime.bench.sources import open_source
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.config.bench.forms import SharedPrefix
from tgi_cli.runtime.config.bench.length_forms import Lengths
from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.text.tokenizer import Tokenizer

_SHARE_GPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "Why?"},
                                  {"from": "gpt", "value": "ba ce di fo gu"}]},
    {"id": "b", "conversations": [{"from": "gpt", "value": "Nobody asked."}]},
    {"id": "c", "conversations": [{"from": "human", "value": "And then?"}]},
]  # fmt: skip


def written(tmp_path, content, name="data"):
    file = tmp_path / name
    text = content if isinstance(content, str) else "\n".join(map(json.dumps, content))
    file.write_text(text, encoding="utf-8")
    return str(file)


def codec():
    return LocalCodec(Tokenizer(family_tokenizer("byte-level", has_bos=True)))


def inputs(path, count, *, own=None, nonce=None, offset=0, phase="measure", **fields):
    source = open_source(BenchOptions(dataset=path, **fields), own, offset=offset)
    return source.inputs(Streams(5, "rate=1", phase, nonce), 0, count)


def test_share_gpt_rows_give_the_first_question_and_the_length_of_its_answer(tmp_path):
    path = written(tmp_path, json.dumps(_SHARE_GPT))

    found = {each.prompt.text: each.output_tokens for each in inputs(path, 2, own=codec())}

    answer = len(codec().encode(["ba ce di fo gu"], add_special_tokens=False)[0])
    assert found == {"Why?": answer, "And then?": 128}


def test_rows_of_json_lines_bring_their_own_fields(tmp_path):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [
        {"prompt": "One", "max_tokens": 7, "stop": ["x"]},
        {"text": "Two"},
        {"messages": messages, "max_completion_tokens": 9, "tools": []},
    ]

    found = read_dataset(written(tmp_path, rows))

    assert [(row.prompt.text, row.output_tokens) for row in found[:2]] == [
        ("One", 7),
        ("Two", None),
    ]
    assert found[0].prompt.fields == {"stop": ["x"]}
    assert found[2].prompt.messages == messages
    assert (found[2].output_tokens, found[2].prompt.fields) == (9, {"tools": []})


def test_the_lines_of_a_plain_text_are_prompts(tmp_path):
    path = written(tmp_path, "\ufeffFirst line\n\n  Second\u2028line \r\n")

    found = read_dataset(path)

    assert [row.prompt.text for row in found] == ["First line", "Second\u2028line"]


def test_every_row_comes_once_before_any_comes_again(tmp_path):
    path = written(tmp_path, [{"prompt": f"p{n}"} for n in range(17)])

    texts = [each.prompt.text for each in inputs(path, 40)]

    assert len(set(texts[:17])) == len(set(texts[17:34])) == 17
    assert texts[:17] != texts[17:34]
    assert texts[:17] != [f"p{n}" for n in range(17)]


@given(start=st.integers(0, 60), count=st.integers(1, 60))
def test_which_row_a_request_gets_depends_on_its_number_alone(tmp_path_factory, start, count):
    path = written(tmp_path_factory.mktemp("rows"), [{"prompt": f"p{n}"} for n in range(13)])
    source = open_source(BenchOptions(dataset=path), None)
    streams = Streams(5, "rate=1", "measure")

    assert source.inputs(streams, start, count) == source.inputs(streams, 0, 120)[start:][:count]


def test_input_lengths_are_counted_where_a_text_is_all_there_is(tmp_path):
    rows = [
        {"prompt": "ba ce di"},
        {"messages": [{"role": "user", "content": "ba ce di"}]},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]},
    ]
    own = codec()

    found = inputs(written(tmp_path, rows), 3, own=own, offset=11)

    length = len(own.encode(["ba ce di"], add_special_tokens=True)[0]) + 11
    assert sorted((e.input_tokens or 0) for e in found) == [0, length, length]


def test_asked_for_output_lengths_stand_in_for_those_of_answers_but_not_of_rows(tmp_path):
    path = written(tmp_path, [*_SHARE_GPT[:1], {"prompt": "x", "max_tokens": 3}])

    found = inputs(path, 2, own=codec(), output_tokens=Lengths(kind="fixed", value=55))

    assert {each.prompt.text: each.output_tokens for each in found} == {"Why?": 55, "x": 3}


@pytest.mark.parametrize("own", [None, codec()])
def test_prompts_begin_with_words_that_no_other_run_has(tmp_path, own):
    rows = [
        {"prompt": "tell me"},
        {"messages": [{"role": "user", "content": "tell me"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "tell me"}]}]},
    ]
    path = written(tmp_path, rows)

    def beginnings(nonce):
        found = []
        for each in inputs(path, 3, own=own, nonce=nonce):
            content = each.prompt.text or each.prompt.messages[0]["content"]
            if isinstance(content, list):
                content = "".join(part["text"] for part in content)
            assert content.endswith("\n\ntell me")
            found.append(content[:12])
        return found

    assert len({*beginnings("run 1"), *beginnings("run 2")}) == 6


def test_shared_prefixes_go_in_front_of_prompts(tmp_path):
    path = written(tmp_path, [{"prompt": f"p{n}"} for n in range(20)])

    found = inputs(path, 20, own=codec(), nonce="run", shared_prefix=SharedPrefix(12, 2))

    prefixes = {each.prompt.text.split("\n\n")[0] for each in found}
    assert len(prefixes) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no prompts"),
        ("{", "line 1: not JSON"),
        ('{"prompt": "x"}\n{"prompt": 7}', "line 2: no 'prompt'"),
        ('{"prompt": "x"}\n[1]', "line 2: not an object"),
        ("[1]", "entry 0: not an object"),
        ("[" * 100_000, "not JSON"),
        ('{"prompt": "x", "max_tokens": 0}', "'max_tokens'"),
        ('{"prompt": "x", "max_tokens": 1e99}', "'max_tokens'"),
        ('{"messages": []}', "'messages'"),
        ('{"messages": [{"content": "x"}]}', "without a role"),
        ('{"conversations": [{"from": "human"}]}', "'from' and 'value'"),
        ('[{"conversations": [{"from": "gpt", "value": "x"}]}]', "holds no prompts"),
    ],
)
def test_a_file_that_is_no_data_set_is_refused_by_place(tmp_path, content, reason):
    with pytest.raises(UsageError, match=reason):
        read_dataset(written(tmp_path, content))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(b"abc\xff")

    with pytest.raises(UsageError, match="not UTF-8 at byte 3"):
        read_dataset(str(file))


def test_made_inputs_need_a_tokenizer():
    with pytest.raises(UsageError, match="No tokenizer"):
        open_source(BenchOptions(), None)


def test_messages_can_not_be_sent_as_token_ids(tmp_path):
    from tgi_cli.runtime.bench.inputs import as_token_ids

    own = codec()
    path = written(tmp_path, [{"messages": [{"role": "user", "content": "x"}]}])

    with pytest.raises(UsageError, match="--send-token-ids"):
        as_token_ids(inputs(path, 1, own=own), own)
