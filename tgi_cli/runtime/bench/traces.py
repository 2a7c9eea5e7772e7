"""Replay recorded arrivals and lengths. Spec: bench.md section 6.

JSON lines: `timestamp` (whole numbers throughout: milliseconds; else seconds), `input_length`,
`output_length` (128 where it lacks); or the text itself as `prompt`, `text` or `messages`. Inputs
with the same `hash_ids` at the beginning share those blocks of 512 tokens; inputs with the same
`conversation_id` begin alike. CSV: `TIMESTAMP,ContextTokens,GeneratedTokens`, whose time is a date
or seconds.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from datetime import UTC, datetime

import msgspec

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import CommonWords
from tgi_cli.runtime.bench.files import (
    JsonObject,
    json_objects,
    messages_of,
    read_text,
    whole_number,
)
from tgi_cli.runtime.bench.inputs import Input, Openings, with_opening
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.bench.synthetic import Draft, TextMaker
from tgi_cli.runtime.config.bench.length_forms import MAX_TOKENS
from tgi_cli.runtime.config.bench.options import DEFAULT_OUTPUT_TOKENS

BLOCK_TOKENS = 512
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class TraceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request."""

    at_s: float  # from the first one
    input_tokens: int | None = None
    output_tokens: int | None = None
    blocks: tuple[int, ...] = ()
    conversation: str | None = None
    turn: int | None = None
    prompt: PromptInput | None = None  # the text itself, if it was recorded


class TraceSource:
    """The inputs of a trace, in the order of their arrival."""

    def __init__(
        self, entries: list[TraceEntry], maker: TextMaker | None, *, offset: int = 0
    ) -> None:
        self.entries = entries
        self._maker = maker
        self._openings = Openings(maker or CommonWords())
        self._offset = offset

    def inputs(self, streams: Streams, start: int, count: int) -> list[Input]:
        entries = self.entries[start : start + count]
        numbers = [number for number, entry in enumerate(entries) if entry.prompt is None]
        if numbers and self._maker is None:
            raise UsageError("--trace: without a tokenizer no text of its lengths can be made.")
        made: dict[int, Input] = {}
        if self._maker is not None:
            drafts = [self._draft(streams, start + n, entries[n], self._maker) for n in numbers]
            texts = self._maker.finish(drafts)
            made = {
                number: Input(
                    prompt=PromptInput(text=text), input_tokens=draft.num_tokens + self._offset
                )
                for number, text, draft in zip(numbers, texts, drafts, strict=True)
            }
        return [
            msgspec.structs.replace(
                made.get(number) or self._recorded(streams, start + number, entry),
                output_tokens=entry.output_tokens or DEFAULT_OUTPUT_TOKENS.value,
                turn=entry.turn,
            )
            for number, entry in enumerate(entries)
        ]

    def primers(self, streams: Streams) -> list[Input]:
        return []

    def _draft(self, streams: Streams, index: int, entry: TraceEntry, maker: TextMaker) -> Draft:
        assert entry.input_tokens is not None, entry
        wanted = max(entry.input_tokens - self._offset, maker.min_tokens)
        generator = streams.of("text", index)
        if entry.blocks:
            opening = self._block_pieces(streams, entry.blocks, wanted, maker)
        elif entry.conversation is not None:
            # A longer input of the conversation begins with all of a shorter one.
            opening = maker.draw(wanted, streams.named("conversation", entry.conversation))
        else:
            [opening] = self._openings.pieces(streams, index, 1)
        return maker.draft(wanted, generator, opening)

    def _block_pieces(
        self, streams: Streams, blocks: tuple[int, ...], wanted: int, maker: TextMaker
    ) -> list[str]:
        pieces: list[str] = []
        for number, block in enumerate(blocks):
            size = min(BLOCK_TOKENS, wanted - number * BLOCK_TOKENS)
            if number == 0:
                size -= maker.num_leading_tokens
            if size <= 0:
                break
            generator = streams.named("block", block)
            # All of a block is drawn, whatever is used of it, so that its beginning is the same.
            whole = maker.draw if number == 0 else maker.more
            pieces += whole(BLOCK_TOKENS, generator)[:size]
        return pieces

    def _recorded(self, streams: Streams, index: int, entry: TraceEntry) -> Input:
        assert entry.prompt is not None, entry
        [pieces] = self._openings.pieces(streams, index, 1)
        return Input(prompt=with_opening(entry.prompt, "".join(pieces)))


def read_trace(path: str, speed: float = 1.0) -> list[TraceEntry]:
    """Return a trace's requests by time, the first at 0; `speed` 2 takes half the time.

    Raises:
        UsageError: a file that can't be read as a trace.
    """
    text = read_text(path)
    if text.lstrip()[:1] in ("[", "{"):
        rows = list(json_objects(path, text))
        stamps = [_timestamp(row, where) for where, row in rows]
        unit_s = 1e-3 if all(isinstance(stamp, int) for stamp in stamps) else 1.0
        found = [
            _entry(row, where, stamp * unit_s)
            for (where, row), stamp in zip(rows, stamps, strict=True)
        ]
    else:
        found = _csv_entries(path, text)
    if not found:
        raise UsageError(f"{path} holds no requests")
    found.sort(key=lambda entry: entry.at_s)
    first = found[0].at_s
    turns: defaultdict[str, int] = defaultdict(int)
    ordered = []
    for entry in found:
        turn = None
        if entry.conversation is not None:
            turn = turns[entry.conversation]
            turns[entry.conversation] += 1
        at_s = (entry.at_s - first) / speed
        ordered.append(msgspec.structs.replace(entry, at_s=at_s, turn=turn))
    return ordered


def _timestamp(row: JsonObject, where: str) -> int | float:
    value = row.get("timestamp")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where}: 'timestamp' is not a number")
    if abs(value) > 1e15:
        raise UsageError(f"{where}: 'timestamp' is beyond any time")
    return value


def _entry(row: JsonObject, where: str, at_s: float) -> TraceEntry:
    messages = messages_of(row, where)
    text = row.get("prompt", row.get("text"))
    prompt = None
    if messages is not None:
        prompt = PromptInput(messages=messages)
    elif isinstance(text, str) and text:
        prompt = PromptInput(text=text)
    input_tokens = whole_number(row, "input_length", where, limit=MAX_TOKENS)
    if input_tokens is None and prompt is None:
        raise UsageError(f"{where}: neither 'input_length' nor a text")
    blocks = row.get("hash_ids") or []
    if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
        raise UsageError(f"{where}: 'hash_ids' is not a list of whole numbers")
    conversation = row.get("conversation_id")
    return TraceEntry(
        at_s=at_s,
        input_tokens=input_tokens,
        output_tokens=whole_number(row, "output_length", where, limit=MAX_TOKENS),
        blocks=tuple(int(block) for block in blocks if isinstance(block, int)),
        conversation=None if conversation is None else str(conversation),
        prompt=prompt,
    )


def _csv_entries(path: str, text: str) -> list[TraceEntry]:
    rows = csv.reader(text.splitlines())
    try:
        heading = [name.strip() for name in next(rows, [])]
        places = [heading.index(name) for name in _COLUMNS]
    except (csv.Error, ValueError) as exc:
        raise UsageError(f"{path}: neither JSON lines nor {','.join(_COLUMNS)}") from exc
    found = []
    try:
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) <= max(places):
                raise UsageError(f"{where}: too few columns")
            at, context, generated = (row[place].strip() for place in places)
            found.append(
                TraceEntry(
                    at_s=_csv_time(at, where),
                    input_tokens=_csv_length(context, where),
                    output_tokens=_csv_length(generated, where),
                )
            )
    except csv.Error as exc:
        raise UsageError(f"{path}, line {rows.line_num}: {exc}") from exc
    return found


def _csv_length(text: str, where: str) -> int:
    """Return a length; a recorded 0 becomes 1, since none can be asked for."""
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= MAX_TOKENS):
        raise UsageError(f"{where}: {text[:40]!r} is not a number of tokens up to {MAX_TOKENS}")
    return max(1, int(text))


def _csv_time(text: str, where: str) -> float:
    try:
        seconds = _seconds(text)
    except (ValueError, OverflowError):
        seconds = math.nan
    if not abs(seconds) < 1e15:
        raise UsageError(f"{where}: {text[:40]!r} is neither a date nor seconds")
    return seconds


def _seconds(text: str) -> float:
    if ":" not in text:
        return float(text)
    # Recorded fractions may be finer than the microseconds of `datetime`.
    whole, _, fraction = text.partition(".")
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    moment = datetime.fromisoformat(whole + fraction[len(digits) :])
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() + (float(f"0.{digits}") if digits else 0.0)
