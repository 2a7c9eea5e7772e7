"""A call of `/v1/completions`, read: which runs it takes, and which of them are its choices.

Choices are numbered prompt by prompt: choice `k` of prompt `i` has the index `i * n + k`. Each run
is a request of its own to the service, with its own permit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tgi_cli.errors import SuffixNotSupported, TooManyPrompts, ValidationError
from tgi_cli.runtime.config.resolved import RequestLimits
from tgi_cli.runtime.router.completions.prompts import (
    check_vocabulary,
    read_prompt,
    split_prompts,
)
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.schemas.common import Usage
from tgi_cli.runtime.router.schemas.completions import CompletionRequest
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import Prompt, Service
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.router.validation import check_best_of

Finished = tuple[Generation, list[GeneratedToken]]


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A request whose own fields are in range, and what to run for it."""

    body: CompletionRequest
    prompts: list[Prompt]
    parameters: GenerateParameters
    n: int  # choices of each prompt
    runs_per_prompt: int  # of which the best `n` are chosen
    num_top: int | None  # best tokens to tell for each; None: no log-probabilities at all

    @property
    def num_characters(self) -> int:
        return sum(len(prompt.text) for prompt in self.prompts)

    @property
    def only_echoes(self) -> bool:
        """Whether the prompt alone is wanted: the engine makes one token, which nobody sees."""
        return bool(self.body.echo) and self.body.max_tokens == 0

    def runs(self) -> list[tuple[Prompt, GenerateParameters]]:
        """Return what to run, the runs of a prompt side by side."""
        parameters = [
            openai.parameters_of_run(self.parameters, run) for run in range(self.runs_per_prompt)
        ]
        return [(prompt, each) for prompt in self.prompts for each in parameters]

    def chosen(self, finished: list[Finished]) -> list[Finished]:
        """Return the best runs of each prompt, best first, or all of them as they are."""
        if self.runs_per_prompt == self.n:
            return finished
        choices: list[Finished] = []
        for start in range(0, len(finished), self.runs_per_prompt):
            runs = finished[start : start + self.runs_per_prompt]
            choices += sorted(runs, key=_mean_logprob, reverse=True)[: self.n]
        return choices

    def usage_of(self, generations: Sequence[Generation]) -> Usage:
        usage = openai.usage_of(generations, runs_per_prompt=self.runs_per_prompt)
        return Usage(usage.prompt_tokens, 0, usage.prompt_tokens) if self.only_echoes else usage


async def read_call(service: Service, body: CompletionRequest) -> CompletionCall:
    """Check what is refused before any run begins, with its own status even for a stream.

    Raises:
        BodyError: a prompt that can't be one.
        RequestError: fields out of range, too many prompts, `suffix`.
    """
    limits = service.config.limits
    prompts = split_prompts(body.prompt)
    with service.counted():
        if body.suffix is not None:
            raise SuffixNotSupported
        if len(prompts) > limits.max_client_batch_size:
            raise TooManyPrompts(limits.max_client_batch_size)
        n = openai.check_n(body.n, limits)
        runs_per_prompt = _runs_per_prompt(body, n, limits)
        num_top = _num_top(body, limits)
        grammar = _grammar(body)
        check_vocabulary(prompts, service.tokenizer.vocab_size)
    is_scored = bool(body.echo) and num_top is not None
    call = CompletionCall(
        body=body,
        prompts=[
            await read_prompt(
                service,
                prompt,
                is_stream=bool(body.stream),
                is_scored=is_scored,
                num_top=(num_top or 0) if is_scored else 0,
            )
            for prompt in prompts
        ],
        parameters=openai.sampling_parameters(body),
        n=n,
        runs_per_prompt=runs_per_prompt,
        num_top=num_top,
    )
    call.parameters.top_n_tokens = num_top
    call.parameters.grammar = grammar
    if call.only_echoes:
        call.parameters.max_new_tokens = 1
    return call


def _runs_per_prompt(body: CompletionRequest, n: int, limits: RequestLimits) -> int:
    best_of = body.best_of or n
    if best_of == n:
        return n
    if best_of < n:
        raise ValidationError(f"`best_of` must be >= `n`. Given: {best_of} `best_of` and {n} `n`")
    check_best_of(best_of, limits)
    if body.stream:
        raise ValidationError("`best_of` != 1 is not supported when streaming tokens")
    return best_of


def _num_top(body: CompletionRequest, limits: RequestLimits) -> int | None:
    """Return how many of the best tokens to tell for each, or None for no scores."""
    if body.logprobs is None or isinstance(body.logprobs, bool):
        return 0 if body.logprobs else None
    if body.logprobs > limits.max_top_n_tokens:
        raise ValidationError(
            f"`logprobs` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {body.logprobs}"
        )
    return body.logprobs


def _grammar(body: CompletionRequest) -> dict[str, Any] | None:
    asked = openai.asked_grammar(body)
    if asked is not None and body.grammar is not None:
        raise ValidationError("`grammar` and `response_format` exclude one another")
    return asked or body.grammar


def _mean_logprob(finished: Finished) -> float:
    tokens = finished[1]
    return sum(token.logprob for token in tokens) / len(tokens)
