"""Chat messages to prompt text, by the model's own template.

Rendering happens in `template_worker.py`, a process that is killed when a render passes its time
limit; here is its client. One render at a time: a normal one takes well under a millisecond.

Special tokens in what the client wrote are text (`marked_text.py`). Where there are any, the
template runs on strings in which they are marked, and so can't see them: a template that takes
such a token for a sign (say, cuts a reply at `</think>`) takes it for text too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tgi_cli.errors import MissingTemplateVariable, TemplateError, WorkerUnavailable
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.text.marked_text import MarkedText, Marker, special_pattern
from tgi_cli.runtime.text.template_worker import RenderReply, RenderRequest
from tgi_cli.runtime.text.worker_process import WorkerEnded, WorkerProcess

TIME_LIMIT_S = 2.0
_WORKER = "tgi_cli.runtime.text.template_worker"

Message = Mapping[str, Any]


class RenderedChat(msgspec.Struct, frozen=True):
    """The prompt's text, and where some special tokens in it are text, how to tell."""

    text: str
    marked: MarkedText | None = None


class _AddedToken(msgspec.Struct):
    content: str
    special: bool = False


class _AddedTokens(msgspec.Struct):
    """The part of a tokenizer.json that says which strings are tokens of their own."""

    added_tokens: list[_AddedToken] = []


class ChatTemplate:
    def __init__(self, assets: TextAssets, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._templates = assets.chat_templates
        self._bos_token = assets.bos_token or ""
        self._eos_token = assets.eos_token or ""
        added = msgspec.json.decode(assets.tokenizer_json, type=_AddedTokens).added_tokens
        self._special = special_pattern(token.content for token in added if token.special)
        self._time_limit_s = time_limit_s
        greeting = msgspec.json.encode(RenderRequest("", {}))
        self._worker = WorkerProcess(_WORKER, greeting, time_limit_s)

    async def start(self) -> None:
        """Start the worker, so that the first chat doesn't wait for it."""
        if self._templates:
            await self._worker.start()

    async def close(self) -> None:
        await self._worker.close()

    def source(self, *, has_tools: bool = False) -> str:
        """Return the template that `render` would use, or "" if there is none."""
        default = self._templates.get("default", "")
        return self._templates.get("tool_use", default) if has_tools else default

    async def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedChat:
        """Return the prompt for `messages`; `variables` are more of what the template may read.

        A last message of the assistant is continued, unless `continue_final_message` is false.

        Raises:
            TemplateError: there is no template, it refused, or it passed a limit.
            MissingTemplateVariable: it needs a variable that isn't given.
        """
        template = self.source(has_tools=bool(tools))
        if not template:
            raise TemplateError("template not found")
        ours = {
            "bos_token": self._bos_token,
            "eos_token": self._eos_token,
            "add_generation_prompt": add_generation_prompt,
        }
        theirs = {**(variables or {}), "messages": messages, "tools": tools}
        marker = Marker(self._special, theirs)
        if marker.has_work:
            theirs = marker.mark(theirs)
        text = await self._render(RenderRequest(template, {**theirs, **ours}))
        if continue_final_message is not False:
            text = _cut_after_final_message(text, theirs["messages"])
        if not marker.has_work:
            return RenderedChat(text)
        marked = marker.read(text)
        return RenderedChat(marked.plain, marked)

    async def _render(self, request: RenderRequest) -> str:
        try:
            answer = await self._worker.ask(msgspec.json.encode(request))  # numbers have no bound
        except TimeoutError as exc:
            raise TemplateError(f"rendering took longer than {self._time_limit_s:g} s") from exc
        except (WorkerEnded, WorkerUnavailable) as exc:
            raise TemplateError("the renderer ended while rendering") from exc
        reply = msgspec.json.decode(answer, type=RenderReply)
        if reply.missing_variable is not None:
            raise MissingTemplateVariable(reply.missing_variable)
        if reply.text is None:
            raise TemplateError(reply.error or "unknown")
        return reply.text


def _cut_after_final_message(text: str, messages: Sequence[Message]) -> str:
    """Let the model go on with the assistant's last message, even if its turn was closed."""
    if not messages or messages[-1].get("role") != "assistant":
        return text
    content = messages[-1].get("content")
    if not isinstance(content, str) or not content.strip():
        return text
    for wanted in (content, content.strip()):  # a template may trim it
        start = text.rfind(wanted)
        if start >= 0:
            return text[: start + len(wanted)].rstrip()
    return text
