"""A choice of a chat that isn't streamed (spec/http-api.md sections 10.4 and 11.3)."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from tgi_cli.runtime.router.chat.run import ChatRun
from tgi_cli.runtime.router.chat.shown import logprobs_of, new_call_id, reason_of_calls, text_for
from tgi_cli.runtime.router.chat.tools import NO_TOOL, ToolUse
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.schemas.chat import ChatChoice
from tgi_cli.runtime.router.schemas.tools import AssistantMessage, ReplyFunction, ReplyToolCall
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.text.function_calls.call import FunctionCall, MakeParser
from tgi_cli.runtime.text.function_calls.wrapped import WrappedCallReader, compact


async def finish(run: ChatRun) -> tuple[ChatChoice, Generation]:
    """Return the choice when all of it has come, and the generation that it is from."""
    async with run:
        tokens = await run.generation.run()
        tools = run.call.tools
        if tools is None:
            return _choice(run, tokens, _content(run, run.generation.text), []), run.generation
        if tools.make_parser is not None:
            content, calls = _read_own_form(run, tools, tools.make_parser, tokens)
            return _choice(run, tokens, content, calls), run.generation
        call = _read_wrapped(run.generation.text)
        if call is not None and call.name == NO_TOOL and tools.may_decline:
            await run.answer_in_words()
            tokens = await run.generation.run()
            return _choice(run, tokens, _content(run, run.generation.text), []), run.generation
        if call is not None and call.name in tools.names:
            return _choice(run, tokens, "", [call]), run.generation
        # Text that is no call was cut off before its end: it is content.
        return _choice(run, tokens, _content(run, run.generation.text), []), run.generation


def _read_wrapped(text: str) -> FunctionCall | None:
    reader = WrappedCallReader()
    arguments = reader.push(text)
    if reader.name is None:
        return None
    if reader.name != NO_TOOL and not (reader.is_complete and _is_json(arguments)):
        return None
    return FunctionCall(reader.name, compact(arguments))


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _content(run: ChatRun, text: str) -> str:
    hider = run.stop_hider()
    return text if hider is None else openai.hide_stop(hider, text, run.generation.finish_reason)


def _read_own_form(
    run: ChatRun, tools: ToolUse, make_parser: MakeParser, tokens: list[GeneratedToken]
) -> tuple[str, list[FunctionCall]]:
    parser = make_parser(tools.names)
    text = _content(run, "".join(text_for(parser, token) for token in tokens))
    pieces = parser.push(text) + parser.flush()
    calls = [piece for piece in pieces if isinstance(piece, FunctionCall)]
    content = "".join(piece for piece in pieces if isinstance(piece, str))
    return content, calls[:1] if tools.only_first_call else calls


def _choice(
    run: ChatRun, tokens: list[GeneratedToken], content: str, calls: list[FunctionCall]
) -> ChatChoice:
    is_strict = run.call.is_strict
    reason = run.generation.finish_reason
    assert reason is not None
    message = AssistantMessage("assistant", content)
    word = openai.finish_reason(reason, is_strict=is_strict)
    if calls:
        message.tool_calls = [
            ReplyToolCall(new_call_id(), "function", ReplyFunction(None, call.name, call.arguments))
            for call in calls
        ]
        if not content:
            message.content = None if is_strict else UNSET
        if is_strict:
            word = reason_of_calls(run.call, reason)
    return ChatChoice(run.index, message, logprobs_of(run.call, tokens), word)
