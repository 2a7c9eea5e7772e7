"""Streamed calls at every border that tokens can have: spec/http-api.md section 11.4."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tgi_cli.runtime.router.chat.call import ChatCall
from tgi_cli.runtime.router.chat.events import ChoiceEvents, Chunks
from tgi_cli.runtime.router.chat.run import ChatRun
from tgi_cli.runtime.router.chat.tools import ToolUse
from tgi_cli.runtime.router.schemas.chat import ChatMessage, ChatRequest
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.schemas.tools import FunctionDefinition
from tgi_cli.runtime.router.service import Prompt
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.types import FinishReason

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"city": "Oslo", "days": 2},
    {"a": '}",{\\"', "b": {"c": [{}, "]"]}, "é": "😀"},
]
STYLES: list[dict[str, Any]] = [
    {"separators": (",", ":")},
    {"indent": 1, "ensure_ascii": False},
]


@dataclass
class ScriptedRun:
    """A generation whose tokens have the given texts."""

    texts: Sequence[str]
    reason: FinishReason
    index: int = 0

    @property
    def generation(self) -> ScriptedRun:
        return self

    def stop_hider(self) -> None:
        return None

    async def tokens(self) -> AsyncIterator[list[GeneratedToken]]:
        is_whole = self.reason is FinishReason.EOS_TOKEN
        last = len(self.texts) - 1
        for index, text in enumerate(self.texts):
            reason = self.reason if index == last and not is_whole else None
            yield [GeneratedToken(index, text, -0.5, False, reason)]
        if is_whole:
            yield [GeneratedToken(2, "<|end|>", -0.5, True, FinishReason.EOS_TOKEN)]


async def choices_of(
    texts: Sequence[str], reason: FinishReason, *, is_strict: bool = False, logprobs: bool = False
) -> list[dict[str, Any]]:
    call = ChatCall(
        body=ChatRequest(messages=[ChatMessage(role="user", content="x")], logprobs=logprobs),
        prompt=Prompt("x"),
        tools=ToolUse(functions=[FunctionDefinition(name="go")], may_decline=True),
        parameters=GenerateParameters(),
        shown_model="tiny",
        is_strict=is_strict,
        n=1,
    )
    run = cast("ChatRun", ScriptedRun(texts, reason))
    events = [frame async for frame in ChoiceEvents(Chunks(call, "-"), run).events()]
    return [json.loads(frame.removeprefix(b"data: "))["choices"][0] for frame in events]


def written(arguments: dict[str, Any], style: dict[str, Any]) -> str:
    return json.dumps({"function": {"_name": "go", **arguments}}, **style)


def cuts(text: str, num_pieces: int) -> Iterator[list[str]]:
    for inner in itertools.combinations(range(1, len(text)), num_pieces - 1):
        borders = [0, *inner, len(text)]
        yield [text[start:end] for start, end in itertools.pairwise(borders)]


def function_of(choice: dict[str, Any]) -> dict[str, Any]:
    [call] = choice["delta"]["tool_calls"]
    return call["function"]


@pytest.mark.parametrize("style", STYLES, ids=["compact", "indented"])
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=["none", "plain", "odd"])
async def test_fragments_are_one_object_wherever_the_tokens_end(arguments, style):
    text = written(arguments, style)
    for pieces in (list(text), *cuts(text, 1), *cuts(text, 2), *cuts(text, 3)):
        choices = await choices_of(pieces, FinishReason.EOS_TOKEN)

        first, *rest = choices
        assert first["delta"] == {
            "role": "assistant",
            "tool_calls": [
                {
                    "index": 0,
                    "id": "0",
                    "type": "function",
                    "function": {"name": "go", "arguments": "{"},
                }
            ],
        }
        for choice in rest:
            [call] = choice["delta"]["tool_calls"]
            assert choice["delta"].keys() == {"role", "tool_calls"}  # and no content
            assert (call["index"], call["id"], call["type"]) == (0, "0", "function")
            assert call["function"]["name"] is None
        fragments = [function_of(choice)["arguments"] for choice in choices]
        assert json.loads("".join(fragments)) == arguments, pieces
        assert all(fragments[:-1])
        assert fragments[-1] == ""
        reasons = [choice["finish_reason"] for choice in choices]
        assert reasons == [None] * (len(choices) - 1) + ["tool_calls"]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=["none", "plain", "odd"])
async def test_openais_form_says_each_thing_once_wherever_the_tokens_end(arguments):
    text = written(arguments, {})
    for pieces in (list(text), *cuts(text, 2)):
        choices = await choices_of(pieces, FinishReason.EOS_TOKEN, is_strict=True)

        calls = [choice["delta"]["tool_calls"][0] for choice in choices]
        assert [choice["delta"].get("role") for choice in choices] == [
            "assistant", *[None] * (len(choices) - 1)
        ]  # fmt: skip
        assert calls[0]["id"].startswith("call_")
        assert all(call.keys() == {"index", "function"} for call in calls[1:])
        assert all(call["function"].keys() == {"arguments"} for call in calls[1:])
        assert json.loads("".join(c["function"]["arguments"] for c in calls)) == arguments
        assert choices[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("is_strict", [False, True])
async def test_a_call_that_is_cut_says_so_wherever_that_was(is_strict):
    text = written(ARGUMENTS[1], {})
    name_end = text.index('"go"') + len('"go"')
    whole = text[name_end + 1 : -1].strip()  # after the comma, without the wrapper's brace
    for end in range(1, len(text) - 1):
        choices = await choices_of(list(text[:end]), FinishReason.LENGTH, is_strict=is_strict)

        assert choices[-1]["finish_reason"] == "length"
        if end < name_end:
            [choice] = choices
            assert choice["delta"] == {"role": "assistant", "content": text[:end]}
        else:
            joined = "".join(function_of(choice)["arguments"] for choice in choices)
            assert ("{" + whole).replace(" ", "").startswith(joined.replace(" ", ""))


async def test_every_token_has_its_score_in_some_event():
    text = written(ARGUMENTS[1], {})
    for pieces in cuts(text, 3):
        choices = await choices_of(pieces, FinishReason.EOS_TOKEN, logprobs=True)

        told = [entry["token"] for choice in choices for entry in choice["logprobs"]["content"]]
        assert told == [*pieces, "<|end|>"]
