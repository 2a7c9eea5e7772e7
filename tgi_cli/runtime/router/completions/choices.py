"""Turn the tokens of one run into a choice of `/v1/completions`, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tgi_cli.runtime.router.completions.call import CompletionCall
from tgi_cli.runtime.router.completions.logprobs import LogprobsBuilder
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.schemas.completions import CompletionLogprobs
from tgi_cli.runtime.router.service import Service
from tgi_cli.runtime.router.tokens import GeneratedToken


async def read_echo(
    service: Service, call: CompletionCall, index: int, generation: Generation
) -> str:
    """Return what choice `index` repeats of its prompt: all of it, or what `truncate` left."""
    if not call.body.echo:
        return ""
    prompt = call.prompts[index // call.n]
    if call.body.truncate is None:
        return prompt.text
    decode = partial(
        service.tokenizer.decode,
        generation.prompt_ids,
        skip_special_tokens=prompt.ids is None,  # the tokenizer added them
    )
    return await service.off_loop(decode)


class ChoiceBuilder:
    """The text and the log-probabilities of one choice. What it is given first has the echo."""

    def __init__(
        self, service: Service, call: CompletionCall, echo: str, generation: Generation
    ) -> None:
        self._only_echoes = call.only_echoes
        self._scores = None if call.num_top is None else LogprobsBuilder(call.num_top)
        self._hider = openai.stop_hider(call.parameters, service.config)
        self._echo: str | None = echo  # None once it is out
        self.generation = generation

    def take(self, tokens: Sequence[GeneratedToken]) -> tuple[str, CompletionLogprobs | None]:
        """Return what `tokens`, one at least, add to the choice."""
        echo, self._echo = self._echo, None
        shown = () if self._only_echoes else tokens
        text = "".join([token.text for token in shown if not token.is_special])
        if self._hider is not None:
            text = openai.hide_stop(self._hider, text, tokens[-1].finish_reason)
        if echo:
            text = echo + text
        if self._scores is None:
            return text, None
        if echo is not None:
            self._scores.add_prompt(self.generation.prompt_tokens, echo)
        for token in shown:
            self._scores.add(token)
        return text, self._scores.take()
