"""Which form of function calls a model was trained on, told by its chat template."""

from __future__ import annotations

from tgi_cli.runtime.text.function_calls.call import MakeParser
from tgi_cli.runtime.text.function_calls.hermes import HermesParser
from tgi_cli.runtime.text.function_calls.llama3 import Llama3Parser
from tgi_cli.runtime.text.function_calls.mistral import MistralParser

_SIGNS: tuple[tuple[str, MakeParser], ...] = (
    ("<tool_call>", HermesParser),
    ("[TOOL_CALLS]", MistralParser),
    ("<|python_tag|>", Llama3Parser),
    ('"parameters": dictionary of argument name', Llama3Parser),  # what Llama 3 is asked to write
)


def parser_for(template: str) -> MakeParser | None:
    """Return the parser of the form that `template` shows, or None if it shows none we know."""
    if "tools" not in template:
        return None
    return next((make for sign, make in _SIGNS if sign in template), None)
