"""Where inputs come from: made up, cut from a text, or read from a file.

A source gives the inputs of a phase by their numbers, so that what request i asks doesn't depend
on how many there are. Under `--prefix-cache avoid` and `prime` each begins with words that no run
has sent before, or, if inputs share a beginning, that beginning is new to the run.
Spec: bench.md section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import Codec, WordSource
from tgi_cli.runtime.bench.lengths import LengthSampler
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.bench.synthetic import NONCE_TOKENS, Draft, TextMaker
from tgi_cli.runtime.config.bench.forms import SharedPrefix
from tgi_cli.runtime.config.bench.length_forms import Lengths


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks. Lengths in tokens; None: not known before it is sent."""

    prompt: PromptInput
    input_tokens: int | None = None
    output_tokens: int | None = None
    conversation: int | None = None
    turn: int | None = None
    answer: str | None = None  # recorded: history is to hold it in place of the server's


class InputSource(Protocol):
    def inputs(self, streams: Streams, start: int, count: int) -> list[Input]:
        """Return inputs `start` to `start + count`, or fewer if the source ends."""
        ...

    def primers(self, streams: Streams) -> list[Input]:
        """Return the beginnings that inputs share, to be sent once before the window."""
        ...


class Prefixes:
    """The beginnings that inputs share."""

    def __init__(self, shared: SharedPrefix, maker: TextMaker) -> None:
        self._shared = shared
        self._maker = maker
        weights = np.arange(1, shared.num_groups + 1, dtype=np.float64) ** -shared.zipf
        self._bounds = np.cumsum(weights / weights.sum())

    def groups(self, streams: Streams, start: int, count: int) -> list[int]:
        """Return the group of each input."""
        drawn = streams.of("group").random(start + count)[start:]
        places = np.searchsorted(self._bounds, drawn, side="right")
        groups: list[int] = np.minimum(places, self._shared.num_groups - 1).tolist()
        return groups

    def pieces(self, streams: Streams, group: int) -> list[str]:
        """Return the group's pieces; with the special tokens before them they are `num_tokens`."""
        count = max(1, self._shared.num_tokens - self._maker.num_leading_tokens)
        return self._maker.draw(count, streams.shared("prefix", group))

    def primers(self, streams: Streams) -> list[Input]:
        drafts = []
        for group in range(self._shared.num_groups):
            pieces = self.pieces(streams, group)
            num_tokens = len(pieces) + self._maker.num_special_tokens
            generator = streams.shared("prefix", group)
            drafts.append(self._maker.draft(num_tokens, generator, pieces))
        return [
            Input(prompt=PromptInput(text=text), input_tokens=draft.num_tokens, output_tokens=1)
            for draft, text in zip(drafts, self._maker.finish(drafts), strict=True)
        ]


class Openings:
    """How inputs begin: with their shared prefix, with words of this run, or with neither."""

    def __init__(self, words: WordSource, prefixes: Prefixes | None = None) -> None:
        self._words = words
        self._prefixes = prefixes

    def pieces(self, streams: Streams, start: int, count: int) -> list[list[str]]:
        """Return the first pieces of each input."""
        if self._prefixes is not None:
            by_group: dict[int, list[str]] = {}
            groups = self._prefixes.groups(streams, start, count)
            for group in set(groups):
                by_group[group] = self._prefixes.pieces(streams, group)
            return [by_group[group] for group in groups]
        return [self._nonce(streams, index) for index in range(start, start + count)]

    def primers(self, streams: Streams) -> list[Input]:
        return [] if self._prefixes is None else self._prefixes.primers(streams)

    def _nonce(self, streams: Streams, index: int) -> list[str]:
        generator = streams.fresh(index)
        return [] if generator is None else self._words.draw(NONCE_TOKENS, generator)


MakeDraft = Callable[[int, np.random.Generator, Sequence[str]], Draft]
"""Begins a text of so many tokens, given its first pieces."""


class MadeSource:
    """Texts of exact lengths, without end: of words drawn at random, or cut from a text."""

    def __init__(
        self,
        make_draft: MakeDraft,
        maker: TextMaker,
        openings: Openings,
        lengths: Lengths,
        output_lengths: Lengths,
        *,
        offset: int = 0,
    ) -> None:
        self._make_draft = make_draft
        self._maker = maker
        self._openings = openings
        self._lengths = LengthSampler(lengths)
        self._output_lengths = LengthSampler(output_lengths)
        self._offset = offset

    def inputs(self, streams: Streams, start: int, count: int) -> list[Input]:
        lengths = self._lengths.draw(start + count, streams.of("input lengths"))[start:]
        outputs = self._output_lengths.draw(start + count, streams.of("output lengths"))[start:]
        openings = self._openings.pieces(streams, start, count)
        drafts = [
            self._make_draft(length - self._offset, streams.of("text", start + number), opening)
            for number, (length, opening) in enumerate(zip(lengths.tolist(), openings, strict=True))
        ]
        return [
            Input(
                prompt=PromptInput(text=text),
                input_tokens=draft.num_tokens + self._offset,
                output_tokens=output,
            )
            for draft, text, output in zip(
                drafts, self._maker.finish(drafts), outputs.tolist(), strict=True
            )
        ]

    def primers(self, streams: Streams) -> list[Input]:
        return self._openings.primers(streams)


def as_token_ids(inputs: list[Input], codec: Codec) -> list[Input]:
    """Return the inputs as token ids, special ones included. Raises `UsageError` for messages."""
    texts = [each.prompt.text for each in inputs if each.prompt.text is not None]
    if len(texts) < len(inputs):
        raise UsageError("--send-token-ids: the data set holds messages, which are sent as text.")
    encoded = codec.encode(texts, add_special_tokens=True)
    return [
        msgspec.structs.replace(
            each,
            prompt=PromptInput(token_ids=ids, fields=each.prompt.fields),
            input_tokens=len(ids),
        )
        for each, ids in zip(inputs, encoded, strict=True)
    ]


def with_opening(prompt: PromptInput, opening: str) -> PromptInput:
    """Return a prompt that begins with `opening`, in its text or in its first message."""
    if not opening:
        return prompt
    if prompt.messages is None:
        return msgspec.structs.replace(prompt, text=f"{opening}\n\n{prompt.text or ''}")
    first: dict[str, Any] = dict(prompt.messages[0])
    content = first.get("content")
    if isinstance(content, list):
        first["content"] = [{"type": "text", "text": f"{opening}\n\n"}, *content]
    else:
        first["content"] = f"{opening}\n\n{content or ''}"
    return msgspec.structs.replace(prompt, messages=[first, *prompt.messages[1:]])
