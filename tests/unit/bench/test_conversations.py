"""Conversations are cut into turns, each with what is new in it."""

from __future__ import annotations

import json

import pytest

from tests.builders.bench_tokenizers import family_tokenizer
from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import LocalCodec
from tgi_cli.runtime.bench.conversations import read_conversations
from tgi_cli.runtime.bench.loads import stage_specs
from tgi_cli.runtime.bench.plan import StagePlanner
from tgi_cli.runtime.bench.sources import open_source
from tgi_cli.runtime.config.bench.length_forms import Lengths
from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.text.tokenizer import Tokenizer


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


_LONG = [{"role": "system", "content": "Be kind."}, user("a1"), assistant("ba ce di"),
         user("a2"), assistant("fo gu"), user("a3")]  # fmt: skip
_SHORT = [user("b1"), assistant("ha")]


def written(tmp_path, rows=({"messages": _LONG}, {"messages": _SHORT})):
    file = tmp_path / "conversations"
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def codec():
    return LocalCodec(Tokenizer(family_tokenizer("byte-level", has_bos=True)))


def plan(path, count=0, *, own=None, nonce=None, **fields):
    options = BenchOptions(conversations=path, **fields)
    [spec] = stage_specs(options)

    def make_body(prompt, output_tokens):
        return json.dumps([prompt.messages, output_tokens]).encode()

    planner = StagePlanner(spec, open_source(options, own), make_body, seed=3, nonce=nonce)
    return planner.phase("measure", count)


def by_conversation(requests):
    found = {}
    for request in requests:
        found.setdefault(request.conversation, []).append(request)
    return list(found.values())


def test_a_turn_holds_what_was_said_since_the_answer_before(tmp_path):
    long, short = read_conversations(written(tmp_path))

    assert [turn.messages for turn in long] == [_LONG[:2], _LONG[3:4], _LONG[5:]]
    assert [turn.answer for turn in long] == ["ba ce di", "fo gu", None]
    assert [(turn.messages, turn.answer) for turn in short] == [(_SHORT[:1], "ha")]


def test_share_gpt_turns_are_read_too(tmp_path):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]

    [[turn]] = read_conversations(written(tmp_path, [{"conversations": turns}]))

    assert (turn.messages, turn.answer) == ([user("a")], "b")


def test_users_get_conversations_with_all_their_turns_in_order(tmp_path):
    requests = plan(written(tmp_path), 4, think_time=1.5).requests

    conversations = by_conversation(requests)
    assert sorted(len(turns) for turns in conversations) == [1, 1, 3, 3]
    for turns in conversations:
        assert [turn.turn for turn in turns] == list(range(len(turns)))
        assert [turn.think_s for turn in turns] == [None, 1.5, 1.5][: len(turns)]
        assert all(turn.sched_s is None for turn in turns)
    assert len({request.index for request in requests}) == len(requests)


def test_more_conversations_go_on_where_the_first_ended(tmp_path):
    whole = plan(written(tmp_path), 9).requests
    parts = plan(written(tmp_path), 2)

    assert [*parts.requests, *parts.more(7)] == whole


def test_at_a_rate_only_the_starts_have_a_time(tmp_path):
    requests = plan(written(tmp_path), rate=(5.0,), arrival="constant", duration=2.0).requests

    starts = [request for request in requests if request.turn == 0]
    assert [request.sched_s for request in starts][:10] == pytest.approx([n / 5 for n in range(10)])
    assert all(request.sched_s is None for request in requests if request.turn)


def test_answers_are_as_long_as_the_recorded_ones_unless_asked_otherwise(tmp_path):
    own = codec()

    recorded = plan(written(tmp_path), 2, own=own).requests
    asked = plan(
        written(tmp_path), 2, own=own, output_tokens=Lengths(kind="fixed", value=5)
    ).requests

    lengths = [len(ids) for ids in own.encode(["ba ce di", "fo gu"], add_special_tokens=False)]
    [long] = [turns for turns in by_conversation(recorded) if len(turns) == 3]
    assert [turn.output_tokens for turn in long] == [*lengths, 128]
    assert {request.output_tokens for request in asked} == {5}


def test_only_the_first_turn_begins_anew(tmp_path):
    requests = plan(written(tmp_path), 2, nonce="run").requests

    [long] = [turns for turns in by_conversation(requests) if len(turns) == 3]
    contents = [json.loads(turn.body)[0][0]["content"] for turn in long]
    assert contents[0].endswith("\n\nBe kind.")
    assert contents[1:] == ["a2", "a3"]


@pytest.mark.parametrize(
    ("replays", "answers"), [(True, ["ba ce di", "fo gu", None]), (False, [None, None, None])]
)
def test_history_holds_recorded_answers_only_in_a_replay(tmp_path, replays, answers):
    requests = plan(written(tmp_path), 2, replay_answers=replays).requests

    [long] = [turns for turns in by_conversation(requests) if len(turns) == 3]
    assert [turn.answer for turn in long] == answers


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"messages": [assistant("x")]}], "holds no conversations"),
        ([{"prompt": "x"}], "neither 'messages' nor"),
        ([{"messages": "x"}], "'messages' is not a list"),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path, rows, reason):
    with pytest.raises(UsageError, match=reason):
        read_conversations(written(tmp_path, rows))
