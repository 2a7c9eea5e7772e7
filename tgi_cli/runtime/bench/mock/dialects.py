"""The three protocols as the mock speaks them: events of a stream, whole replies, errors.

The text is made of words, one a token, the same for every answer; some of them are longer in bytes
than in characters, so that a reader meets characters that are split over reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from tgi_cli.runtime.config.mock import Dialect, Usage

_WORDS = (" one", " café", " two", " 世界", " three", " naïve", " four", " 😀", " five")
_FIRST_ID = 1000
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, whatever the protocol."""

    model_id: str
    input_tokens: int
    cached_tokens: int | None  # None: the mock has no prefix cache
    num_tokens: int
    ends_by_itself: bool
    usage: Usage
    usage_offset: int
    sends_token_ids: bool
    num_reasoning_tokens: int
    has_role_event: bool
    has_details: bool  # TGI's


def token_id(position: int) -> int:
    return _FIRST_ID + position % len(_WORDS)


def text_of(first: int, stop: int) -> str:
    """Return the text of the tokens at positions `first` to `stop`, without `stop`."""
    return "".join(_WORDS[position % len(_WORDS)] for position in range(first, stop))


class TgiForm:
    """`/generate` and `/generate_stream`: an event per token, and the last one is the end mark."""

    def opening(self, _answer: Answer) -> list[bytes]:
        return []

    def events(self, answer: Answer, first: int, stop: int, *, has_end: bool) -> list[bytes]:
        return [
            self._event(answer, position, is_end=has_end and position == answer.num_tokens - 1)
            for position in range(first, stop)
        ]

    def _event(self, answer: Answer, position: int, *, is_end: bool) -> bytes:
        token = {
            "id": token_id(position),
            "text": text_of(position, position + 1),
            "logprob": -0.5,
            "special": False,
        }
        return _event_of(position + 1, token, answer if is_end else None)

    def closing(self, answer: Answer) -> list[bytes]:
        """Only an answer without a token needs an end mark of its own."""
        return [] if answer.num_tokens else [_event_of(0, None, answer)]

    def whole(self, answer: Answer) -> bytes:
        reply: dict[str, Any] = {"generated_text": text_of(0, answer.num_tokens)}
        if answer.has_details:
            tokens = [
                {
                    "id": token_id(position),
                    "text": text_of(position, position + 1),
                    "logprob": -0.5,
                    "special": False,
                }
                for position in range(answer.num_tokens)
            ]
            reply["details"] = _details(answer) | {"prefill": [], "tokens": tokens}
        return _encode(reply)

    def error(self, message: str, kind: str) -> dict[str, Any]:
        return {"error": message, "error_type": kind}


def _event_of(index: int, token: dict[str, Any] | None, ended: Answer | None) -> bytes:
    event: dict[str, Any] = {
        "index": index,
        "token": token,
        "generated_text": None,
        "details": None,
    }
    if ended is not None:
        event["generated_text"] = text_of(0, ended.num_tokens)
        if ended.has_details:
            event["details"] = _details(ended) | {"input_length": ended.input_tokens}
    return b"data:" + _encode(event) + b"\n\n"


def _details(answer: Answer) -> dict[str, Any]:
    return {
        "finish_reason": "eos_token" if answer.ends_by_itself else "length",
        "generated_tokens": answer.num_tokens + answer.usage_offset,
        "seed": None,
    }


class OpenAiForm:
    """`/v1/completions` and `/v1/chat/completions`."""

    def __init__(self, *, is_chat: bool) -> None:
        self._is_chat = is_chat

    def opening(self, answer: Answer) -> list[bytes]:
        """Return the event of a chat that only names the role."""
        if not (self._is_chat and answer.has_role_event):
            return []
        return [self._event(answer, {"delta": {"role": "assistant", "content": ""}}, 0)]

    def events(self, answer: Answer, first: int, stop: int, *, has_end: bool) -> list[bytes]:
        """Return one event that holds all of these tokens; the end is `closing`'s."""
        choice: dict[str, Any]
        if self._is_chat:
            choice = {"delta": _message(answer, first, stop)}
        else:
            choice = {"text": text_of(first, stop)}
        if answer.sends_token_ids:
            choice["token_ids"] = [token_id(position) for position in range(first, stop)]
        return [self._event(answer, choice, stop)]

    def closing(self, answer: Answer) -> list[bytes]:
        choice: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
        choice["finish_reason"] = "stop" if answer.ends_by_itself else "length"
        events = [self._event(answer, choice, answer.num_tokens)]
        if answer.usage != "none":
            events.append(
                _data(
                    self._head(answer) | {"choices": [], "usage": _usage(answer, answer.num_tokens)}
                )
            )
        return [*events, b"data: [DONE]\n\n"]

    def whole(self, answer: Answer) -> bytes:
        choice: dict[str, Any] = {"index": 0, "logprobs": None}
        if self._is_chat:
            choice["message"] = {"role": "assistant"} | _message(answer, 0, answer.num_tokens)
        else:
            choice["text"] = text_of(0, answer.num_tokens)
        choice["finish_reason"] = "stop" if answer.ends_by_itself else "length"
        usage = {} if answer.usage == "none" else {"usage": _usage(answer, answer.num_tokens)}
        return _encode(self._head(answer) | {"choices": [choice]} | usage)

    def error(self, message: str, kind: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": kind, "code": None, "param": None}}

    def _head(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": "mock",
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": 0,
            "model": answer.model_id,
        }

    def _event(self, answer: Answer, choice: dict[str, Any], num_so_far: int) -> bytes:
        event = self._head(answer)
        event["choices"] = [{"index": 0, "finish_reason": None, "logprobs": None} | choice]
        if answer.usage == "continuous":
            event["usage"] = _usage(answer, num_so_far)
        return _data(event)


def _message(answer: Answer, first: int, stop: int) -> dict[str, str]:
    """Return the reasoning and the content among these tokens of a chat."""
    border = min(max(answer.num_reasoning_tokens, first), stop)
    message = {"reasoning_content": text_of(first, border)} if border > first else {}
    if stop > border:
        message["content"] = text_of(border, stop)
    return message


def _usage(answer: Answer, num_tokens: int) -> dict[str, Any]:
    output = num_tokens + (answer.usage_offset if num_tokens else 0)
    usage: dict[str, Any] = {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": output,
        "total_tokens": answer.input_tokens + output,
    }
    if answer.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": answer.cached_tokens}
    return usage


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


def error_event(form: TgiForm | OpenAiForm) -> bytes:
    """Return the event by which an answer fails after status 200."""
    return _data(form.error("the mock fails as asked", "generation"))


GARBAGE_EVENT = b'data: {"choices": [{"delta"\n\n'

FORMS: dict[Dialect, TgiForm | OpenAiForm] = {
    "tgi": TgiForm(),
    "completions": OpenAiForm(is_chat=False),
    "chat": OpenAiForm(is_chat=True),
}
