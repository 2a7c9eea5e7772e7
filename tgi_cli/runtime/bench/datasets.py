"""Prompts from a file: ShareGPT's JSON, JSON lines, or the lines of a plain text.

A row of JSON has `prompt`, `text` or `messages`, or ShareGPT's `conversations`; it may have
`max_tokens`, and any other field goes into the body as it is. Rows come in an order that the seed
gives, again and again. Spec: bench.md section 7.
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
    whole_number,
)
from tgi_cli.runtime.bench.inputs import Input, Openings, with_opening
from tgi_cli.runtime.bench.lengths import LengthSampler
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.config.bench.length_forms import MAX_TOKENS, Lengths

_LENGTH_NAMES = ("max_tokens", "max_completion_tokens", "max_new_tokens")
_OWN_NAMES = frozenset(("prompt", "text", "messages", "conversations", "id", *_LENGTH_NAMES))


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt of a file."""

    prompt: PromptInput
    output_tokens: int | None = None
    answer: str | None = None  # recorded; gives the output's length where nothing else does


class DatasetSource:
    """The rows of a file. Raises `UsageError` for one that can't be read."""

    def __init__(
        self,
        rows: list[Row],
        codec: Codec | None,
        openings: Openings,
        output_lengths: Lengths | None,
        default_output_lengths: Lengths,
        *,
        offset: int = 0,
    ) -> None:
        self._rows = rows
        self._codec = codec
        self._openings = openings
        self._is_asked = output_lengths is not None
        self._output_lengths = LengthSampler(output_lengths or default_output_lengths)
        self._offset = offset

    def inputs(self, streams: Streams, start: int, count: int) -> list[Input]:
        rows = [self._rows[number] for number in self._order(streams, start, count)]
        drawn = self._output_lengths.draw(start + count, streams.of("output lengths"))[start:]
        openings = self._opening_texts(streams, start, count)
        prompts = [
            with_opening(row.prompt, opening) for row, opening in zip(rows, openings, strict=True)
        ]
        return [
            Input(prompt=prompt, input_tokens=input_tokens, output_tokens=output_tokens)
            for prompt, input_tokens, output_tokens in zip(
                prompts,
                self._input_tokens(prompts),
                self._output_tokens(rows, drawn.tolist()),
                strict=True,
            )
        ]

    def primers(self, streams: Streams) -> list[Input]:
        return self._openings.primers(streams)

    def _order(self, streams: Streams, start: int, count: int) -> list[int]:
        """Return the rows of these requests: each comes once before any comes again."""
        size = len(self._rows)
        rounds = range(start // size, (start + count - 1) // size + 1)
        orders = [streams.of("order", number).permutation(size) for number in rounds]
        skipped = start - rounds.start * size
        found: list[int] = np.concatenate(orders)[skipped : skipped + count].tolist()
        return found

    def _opening_texts(self, streams: Streams, start: int, count: int) -> list[str]:
        return ["".join(pieces) for pieces in self._openings.pieces(streams, start, count)]

    def _input_tokens(self, prompts: list[PromptInput]) -> list[int | None]:
        """Return the tokens of prompts that are one text; a template may do more to others."""
        texts = [_single_text(prompt) for prompt in prompts]
        known = [text for text in texts if text is not None]
        if self._codec is None:
            return [None] * len(prompts)
        counts = iter(self._codec.encode(known, add_special_tokens=True))
        return [None if text is None else len(next(counts)) + self._offset for text in texts]

    def _output_tokens(self, rows: list[Row], drawn: list[int]) -> list[int]:
        """Return the row's own length, else the one asked for, else that of the answer."""
        answers = [row.answer or "" for row in rows]
        measured = [0] * len(rows)
        if self._codec is not None and not self._is_asked:
            encoded = self._codec.encode(answers, add_special_tokens=False)
            measured = [len(ids) for ids in encoded]
        return [
            row.output_tokens or length or usual
            for row, length, usual in zip(rows, measured, drawn, strict=True)
        ]


def read_dataset(path: str) -> list[Row]:
    """Return the prompts of a file, in its order. Raises `UsageError`."""
    text = read_text(path)
    if text.lstrip()[:1] in ("[", "{"):
        found = (_row(row, where) for where, row in json_objects(path, text))
        rows = [row for row in found if row is not None]
    else:
        lines = (line.strip() for line in text.split("\n"))
        rows = [Row(prompt=PromptInput(text=line)) for line in lines if line]
    if not rows:
        raise UsageError(f"{path} holds no prompts")
    return rows


def _row(row: JsonObject, where: str) -> Row | None:
    """Return a row's prompt; None for a ShareGPT row that no user begins."""
    fields: dict[str, Any] = {name: row[name] for name in row if name not in _OWN_NAMES}
    lengths = (whole_number(row, name, where, limit=MAX_TOKENS) for name in _LENGTH_NAMES)
    output_tokens = next((length for length in lengths if length is not None), None)
    shared = shared_messages_of(row, where)
    if shared is not None:
        if not shared or shared[0]["role"] != "user" or not text_of(shared[0]).strip():
            return None
        answer = text_of(shared[1]) if shared[1:] and shared[1]["role"] == "assistant" else None
        prompt = PromptInput(text=text_of(shared[0]))
        return Row(prompt=prompt, output_tokens=output_tokens, answer=answer)
    prompt = PromptInput(messages=messages_of(row, where), fields=fields)
    if prompt.messages is None:
        text = row.get("prompt", row.get("text"))
        if not isinstance(text, str) or not text:
            raise UsageError(f"{where}: no 'prompt', 'text' or 'messages'")
        prompt = PromptInput(text=text, fields=fields)
    return Row(prompt=prompt, output_tokens=output_tokens)


def _single_text(prompt: PromptInput) -> str | None:
    if prompt.text is not None or prompt.messages is None:
        return prompt.text
    if len(prompt.messages) > 1 or not isinstance(prompt.messages[0].get("content"), str):
        return None
    return str(prompt.messages[0]["content"])
