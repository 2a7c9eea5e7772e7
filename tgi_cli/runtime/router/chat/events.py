"""The events of a chat's choices (spec/http-api.md sections 10.5 and 11.4).

Tokens are held back until it is known what they are: the name of a call must be whole, and what
may be the beginning of one can't be content yet. What is known of held tokens goes with the event
that decides on them.

TGI repeats role, id and type in every event; OpenAI's own clients would join them, so in strict
mode each is told once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from msgspec import UNSET, UnsetType

from tgi_cli.runtime.router.chat.call import ChatCall
from tgi_cli.runtime.router.chat.run import ChatRun
from tgi_cli.runtime.router.chat.shown import (
    logprobs_of,
    new_call_id,
    reason_of_calls,
    streamed_call_id,
    text_for,
    text_of,
)
from tgi_cli.runtime.router.chat.tools import NO_TOOL, ToolUse
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.schemas.chat import ChatChunk, ChunkChoice
from tgi_cli.runtime.router.schemas.common import Usage
from tgi_cli.runtime.router.schemas.tools import AssistantDelta, DeltaFunction, DeltaToolCall
from tgi_cli.runtime.router.streaming import event
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.text.function_calls.call import FunctionCall, MakeParser
from tgi_cli.runtime.text.function_calls.wrapped import WrappedCallReader
from tgi_cli.runtime.types import FinishReason


class Chunks:
    """Makes the events of one stream, whatever choice they are of."""

    def __init__(self, call: ChatCall, fingerprint: str) -> None:
        self.call = call
        self._id = openai.new_id("chatcmpl")
        self._fingerprint = fingerprint

    def chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> bytes:
        return event(
            ChatChunk(
                object="chat.completion.chunk",
                id=self._id,
                created=openai.now(),
                model=self.call.shown_model,
                system_fingerprint=self._fingerprint,
                choices=choices,
                usage=usage,
            )
        )


class ChoiceEvents:
    """Makes the events of one choice."""

    def __init__(self, chunks: Chunks, run: ChatRun) -> None:
        self.run = run
        self._chunks = chunks
        self._call = chunks.call
        self._is_strict = chunks.call.is_strict
        self._hider = run.stop_hider()
        self._tells_role = True
        self._held: list[GeneratedToken] = []

    def encode(self, tokens: list[GeneratedToken]) -> list[bytes]:
        """Return the events of tokens that are content."""
        return [
            self._event(
                self._delta(self._shown(text_of(token), token.finish_reason)),
                [token],
                self._word(token.finish_reason),
            )
            for token in tokens
        ]

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the events of the whole choice."""
        tools = self._call.tools
        if tools is None:
            source = self._content()
        elif tools.make_parser is not None:
            source = self._own_form(tools, tools.make_parser)
        else:
            source = self._wrapped(tools)
        async for frame in source:
            yield frame

    async def _content(self) -> AsyncGenerator[bytes]:
        async for tokens in self.run.generation.tokens():
            for frame in self.encode(tokens):
                yield frame

    async def _wrapped(self, tools: ToolUse) -> AsyncGenerator[bytes]:
        """Yield a call in TGI's form; or an answer in words, after the model took no tool."""
        reader = WrappedCallReader()
        call_id = streamed_call_id(self._call)
        async for tokens in self.run.generation.tokens():
            for token in tokens:
                self._held.append(token)
                was_named = reader.name is not None
                fragment = reader.push(text_of(token))
                if reader.name == NO_TOOL and tools.may_decline:
                    continue
                if reader.name is not None and not was_named:
                    yield self._call_event(0, call_id, reader.name, fragment[:1])
                    fragment = fragment[1:]
                for frame in self._wrapped_events(reader, call_id, fragment, token.finish_reason):
                    yield frame
        if reader.name == NO_TOOL and tools.may_decline:
            self._held.clear()
            await self.run.answer_in_words()
            async for frame in self._content():
                yield frame

    def _wrapped_events(
        self, reader: WrappedCallReader, call_id: str, fragment: str, reason: FinishReason | None
    ) -> list[bytes]:
        """Return the events of one more fragment, and what ends the choice if that was the last."""
        ends = reason is not None
        if reader.name is None:  # cut off before there was a call: content
            if not ends:
                return []
            content = self._shown(reader.held, reason)
            return [self._event(self._delta(content), None, self._word(reason))]
        if ends and not reader.is_complete:
            return [self._call_event(0, call_id, None, fragment, self._word(reason))]
        events = [self._call_event(0, call_id, None, fragment)] if fragment else []
        # TGI's callers read a call from every event, from the last one too.
        return [*events, self._call_event(0, call_id, None, "", "tool_calls")] if ends else events

    async def _own_form(self, tools: ToolUse, make_parser: MakeParser) -> AsyncGenerator[bytes]:
        """Yield content and calls in the form that the model was trained on."""
        parser = make_parser(tools.names)
        num_calls = 0
        async for tokens in self.run.generation.tokens():
            for token in tokens:
                self._held.append(token)
                pieces = parser.push(self._shown(text_for(parser, token), token.finish_reason))
                if token.finish_reason is not None:
                    pieces += parser.flush()
                for piece in pieces:
                    if not isinstance(piece, FunctionCall):
                        yield self._event(self._delta(piece))
                    elif num_calls == 0 or not tools.only_first_call:
                        yield self._call_event(
                            num_calls, new_call_id(), piece.name, piece.arguments
                        )
                        num_calls += 1
                reason = token.finish_reason
                if reason is not None:
                    word = reason_of_calls(self._call, reason) if num_calls else self._word(reason)
                    yield self._event(AssistantDelta(self._role()), None, word)

    def _shown(self, text: str, reason: FinishReason | None) -> str:
        """Return what of `text` can be content, or a call in the model's own form."""
        return text if self._hider is None else openai.hide_stop(self._hider, text, reason)

    def _word(self, reason: FinishReason | None) -> str | None:
        return reason and openai.finish_reason(reason, is_strict=self._is_strict)

    def _role(self) -> str | UnsetType:
        """Return the role if it is to be told."""
        tells, self._tells_role = self._tells_role, not self._is_strict
        return "assistant" if tells else UNSET

    def _delta(self, content: str) -> AssistantDelta:
        return AssistantDelta(self._role(), content)

    def _call_event(
        self, index: int, call_id: str, name: str | None, arguments: str, word: str | None = None
    ) -> bytes:
        """Return an event of a call; its name comes with the first one."""
        tells_all = name is not None or not self._is_strict
        call = DeltaToolCall(
            index,
            call_id if tells_all else UNSET,
            "function" if tells_all else UNSET,
            DeltaFunction(name if tells_all else UNSET, arguments),
        )
        return self._event(AssistantDelta(self._role(), UNSET, [call]), None, word)

    def _event(
        self,
        delta: AssistantDelta,
        tokens: list[GeneratedToken] | None = None,
        word: str | None = None,
    ) -> bytes:
        """Return one event, about `tokens` or those that are held."""
        if tokens is None:
            tokens, self._held = self._held, []
        logprobs = logprobs_of(self._call, tokens)
        return self._chunks.chunk([ChunkChoice(self.run.index, delta, logprobs, word)])
