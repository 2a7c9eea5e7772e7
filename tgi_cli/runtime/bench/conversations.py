"""Conversations of a file, turn by turn. Spec: bench.md section 6.

JSON or JSON lines, each row one conversation: `messages`, or ShareGPT's `conversations`. A turn is
what was said since the last answer, a user's words at its end; history is put in front of it when
it is sent.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import Codec
from tgi_cli.runtime.bench.files import (
    JsonObject,
    json_objects,
    messages_of,
    read_text,
    shared_messages_of,
    text_of,
)
from tgi_cli.runtime.bench.inputs import Input, Openings, with_opening
from tgi_cli.runtime.bench.lengths import LengthSampler
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.config.bench.length_forms import Lengths


class Turn(msgspec.Struct, frozen=True):
    messages: list[dict[str, Any]]  # new since the answer before
    answer: str | None  # recorded; None: the conversation ends before it


class ConversationSource:
    """The conversations of a file, in an order that the seed gives, again and again."""

    def __init__(
        self,
        conversations: list[list[Turn]],
        codec: Codec | None,
        openings: Openings,
        output_lengths: Lengths | None,
        default_output_lengths: Lengths,
        *,
        replays_answers: bool = False,
    ) -> None:
        self._conversations = conversations
        self.max_turns = max(map(len, conversations))
        self._codec = codec
        self._openings = openings
        self._replays_answers = replays_answers
        self._is_asked = output_lengths is not None
        self._output_lengths = LengthSampler(output_lengths or default_output_lengths)

    def conversations(self, streams: Streams, start: int, count: int) -> list[list[Input]]:
        """Return the turns of conversations `start` to `start + count`."""
        return [self._inputs(streams, number) for number in range(start, start + count)]

    def _inputs(self, streams: Streams, number: int) -> list[Input]:
        turns = self._conversations[self._place(streams, number)]
        lengths = self._lengths(turns, streams, number)
        [pieces] = self._openings.pieces(streams, number, 1)
        opening = "".join(pieces)
        found = []
        for place, (turn, length) in enumerate(zip(turns, lengths, strict=True)):
            prompt = PromptInput(messages=turn.messages)
            found.append(
                Input(
                    prompt=with_opening(prompt, opening) if place == 0 else prompt,
                    output_tokens=length,
                    conversation=number,
                    turn=place,
                    answer=turn.answer if self._replays_answers else None,
                )
            )
        return found

    def _place(self, streams: Streams, number: int) -> int:
        size = len(self._conversations)
        order = streams.of("order", number // size).permutation(size)
        return int(order[number % size])

    def _lengths(self, turns: list[Turn], streams: Streams, number: int) -> list[int]:
        drawn = self._output_lengths.draw(len(turns), streams.of("output lengths", number))
        lengths: list[int] = np.maximum(drawn, 1).tolist()
        if self._is_asked or self._codec is None:
            return lengths
        answers = [turn.answer or "" for turn in turns]
        encoded = self._codec.encode(answers, add_special_tokens=False)
        return [len(ids) or usual for ids, usual in zip(encoded, lengths, strict=True)]


def read_conversations(path: str) -> list[list[Turn]]:
    """Return the conversations of a file that a user has a part in. Raises `UsageError`."""
    rows = json_objects(path, read_text(path))
    found = [turns for where, row in rows if (turns := _turns(row, where))]
    if not found:
        raise UsageError(f"{path} holds no conversations")
    return found


def _turns(row: JsonObject, where: str) -> list[Turn]:
    messages = messages_of(row, where) or shared_messages_of(row, where)
    if messages is None:
        raise UsageError(f"{where}: neither 'messages' nor 'conversations'")
    turns: list[Turn] = []
    new: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] != "assistant":
            new.append(message)
        elif new:
            turns.append(Turn(new, text_of(message)))
            new = []
    if new and new[-1]["role"] == "user":
        turns.append(Turn(new, None))
    return turns
