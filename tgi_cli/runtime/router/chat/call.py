"""What one chat request comes to: prompts, parameters and how tools are used, all checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from tgi_cli.errors import MissingTemplateVariable, TemplateError, ValidationError
from tgi_cli.runtime.router.chat.messages import template_messages
from tgi_cli.runtime.router.chat.tools import ToolUse, tool_use, with_tool_prompt
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.schemas.chat import ChatRequest
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import Prompt, Service

_OURS = frozenset({"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"})


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A chat that can run: `prompt` asks for calls if `tools` says so."""

    body: ChatRequest
    prompt: Prompt
    tools: ToolUse | None
    parameters: GenerateParameters
    shown_model: str
    is_strict: bool
    n: int  # choices

    @property
    def num_characters(self) -> int:
        return len(self.prompt.text)

    def without_grammar(self) -> GenerateParameters:
        return msgspec.structs.replace(self.parameters, grammar=None)


async def read_call(
    service: Service, body: ChatRequest, parameters: GenerateParameters, n: int
) -> ChatCall:
    """Render the prompt of `body`, and finish `parameters` with what only chats have.

    Raises:
        RequestError: whatever may be wrong with messages, tools, grammar or template.
    """
    config = service.config
    template = service.chat_template.source(has_tools=bool(body.tools))
    tools = tool_use(body, template, is_strict=config.openai_strict)
    parameters.top_n_tokens = body.top_logprobs
    parameters.grammar = _grammar(body, tools)
    return ChatCall(
        body=body,
        prompt=await render(service, body, tools),
        tools=tools,
        parameters=parameters,
        # Unknown names run the served model and are echoed.
        shown_model=config.model_id if body.model in (None, "tgi") else str(body.model),
        is_strict=config.openai_strict,
        n=n,
    )


async def render(service: Service, body: ChatRequest, tools: ToolUse | None) -> Prompt:
    """Return the prompt of a chat, which asks for calls if there are `tools`."""
    variables = body.chat_template_kwargs or {}
    if taken := _OURS & variables.keys():
        raise ValidationError(f"`chat_template_kwargs` can't set `{min(taken)}`")
    template = service.chat_template.source(has_tools=tools is not None)
    messages = template_messages(body.messages, template)
    shown: list[dict[str, Any]] | None = None
    if tools is not None:
        shown = tools.shown() if "tools" in template else None
        ends_in_calls = not body.messages or bool(body.messages[-1].tool_calls)
        if tools.make_parser is None and not ends_in_calls:
            messages = with_tool_prompt(messages, tools, body.tool_prompt, template)
    try:
        with service.trace("apply_chat_template"):
            rendered = await service.chat_template.render(
                messages,
                tools=shown,
                add_generation_prompt=body.add_generation_prompt is not False,
                continue_final_message=body.continue_final_message,
                variables=variables,
            )
    except (TemplateError, MissingTemplateVariable) as exc:
        if exc.message != "template not found":
            service.metrics.fail("template")
        raise
    return Prompt(
        rendered.text,
        add_special_tokens=False,
        is_stream=bool(body.stream),
        marked=rendered.marked,
    )


def _grammar(body: ChatRequest, tools: ToolUse | None) -> dict[str, Any] | None:
    if tools is not None:
        return None if tools.make_parser is not None else tools.grammar()
    return openai.asked_grammar(body)
