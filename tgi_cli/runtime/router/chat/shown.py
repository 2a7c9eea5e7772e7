"""Function calls and scores as replies and events of a chat show them."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence

from tgi_cli.runtime.router.chat.call import ChatCall
from tgi_cli.runtime.router.schemas.chat import Logprobs, TokenLogprob, TopLogprob
from tgi_cli.runtime.router.schemas.common import finite
from tgi_cli.runtime.router.tokens import GeneratedToken, ScoredToken
from tgi_cli.runtime.text.function_calls.call import CallParser
from tgi_cli.runtime.types import FinishReason


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def streamed_call_id(call: ChatCall) -> str:
    """Return TGI's id of a streamed call: one more than all before it, if those are numbers."""
    if call.is_strict:
        return new_call_id()
    ids = [each.id or "" for message in call.body.messages for each in message.tool_calls or ()]
    if not all(each.isascii() and each.isdecimal() and len(each) < 19 for each in ids):
        return str(uuid.uuid4())
    return str(max(map(int, ids), default=-1) + 1)


def reason_of_calls(call: ChatCall, reason: FinishReason) -> str:
    """Return OpenAI's reason for a choice with calls, unless more might have come after them."""
    goes_on = call.tools is not None and call.tools.make_parser is not None
    return "length" if goes_on and reason is FinishReason.LENGTH else "tool_calls"


def text_of(token: GeneratedToken) -> str:
    """Return what a token adds to the reply's text."""
    return "" if token.is_special else token.text


def text_for(parser: CallParser, token: GeneratedToken) -> str:
    """Return what a token adds to the text that `parser` reads."""
    return token.text if token.text in parser.markers else text_of(token)


def logprobs_of(call: ChatCall, tokens: Sequence[GeneratedToken]) -> Logprobs | None:
    return Logprobs([_token_logprob(token) for token in tokens]) if call.body.logprobs else None


def _token_logprob(token: GeneratedToken) -> TokenLogprob:
    return TokenLogprob(
        token.text,
        finite(token.logprob),
        list(token.text.encode()),
        [_top_logprob(top) for top in token.top_tokens],
    )


def _top_logprob(top: ScoredToken) -> TopLogprob:
    return TopLogprob(top.text, finite(top.logprob), list(top.text.encode()))
