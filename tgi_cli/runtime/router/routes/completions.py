"""`/v1/completions` (spec/http-api.md section 9)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tgi_cli.errors import SuffixNotSupported, TooManyPrompts, ValidationError
from tgi_cli.runtime.config.resolved import RequestLimits
from tgi_cli.runtime.router import completion_prompts
from tgi_cli.runtime.router.bodies import read_body
from tgi_cli.runtime.router.concurrency import run_together
from tgi_cli.runtime.router.headers import reply_headers, stream_headers
from tgi_cli.runtime.router.replies import json_reply
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.common import Usage
from tgi_cli.runtime.router.schemas.completions import (
    Completion,
    CompletionChoice,
    CompletionRequest,
)
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import Generation, Prompt, Service
from tgi_cli.runtime.router.streaming import EventStream, event
from tgi_cli.runtime.router.tokens import GeneratedToken
from tgi_cli.runtime.router.validation import check_best_of, unsupported
from tgi_cli.runtime.types import FinishReason

if TYPE_CHECKING:
    from aiohttp import web

Finished = tuple[Generation, list[GeneratedToken]]


async def completions(request: web.Request) -> web.StreamResponse:
    openai.tell_errors_in_openai_form(request)
    service = request.app[SERVICE]
    call = await _read(service, await read_body(request, CompletionRequest))
    num_characters = sum(len(prompt.text) for prompt in call.prompts)
    if call.body.stream:
        headers = stream_headers(service.config.compute_type, num_characters)
        return await openai.send_stream(
            request, headers, partial(_open, service, call), partial(_send, service, call)
        )
    runs = [_run(service, prompt, parameters) for prompt, parameters in call.runs()]
    finished = await run_together(runs)
    generations = [generation for generation, _ in finished]
    reply = _completion(service, openai.new_id("cmpl"))
    reply.choices = [
        _choice(service, call, index, run) for index, run in enumerate(call.chosen(finished))
    ]
    reply.usage = call.usage_of(generations)
    headers = reply_headers(
        service.config.compute_type, num_characters, generations, has_compute_time=False
    )
    return json_reply(reply, headers=headers)


@dataclass(frozen=True, slots=True)
class _Call:
    """A request whose own fields are in range, and what to run for it."""

    body: CompletionRequest
    prompts: list[Prompt]
    parameters: GenerateParameters
    n: int  # choices of each prompt
    runs_per_prompt: int  # of which the best `n` are chosen

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

    @property
    def only_echoes(self) -> bool:
        """Whether the prompt alone is wanted: the engine makes one token, which nobody sees."""
        return bool(self.body.echo) and self.body.max_tokens == 0

    def usage_of(self, generations: list[Generation]) -> Usage:
        usage = openai.usage_of(generations, runs_per_prompt=self.runs_per_prompt)
        return Usage(usage.prompt_tokens, 0, usage.prompt_tokens) if self.only_echoes else usage


async def _read(service: Service, body: CompletionRequest) -> _Call:
    """Check what is refused before any run begins, with its own status even for a stream."""
    limits = service.config.limits
    prompts = completion_prompts.split_prompts(body.prompt)
    service.metrics.count("tgi_request_count")
    if body.suffix is not None:
        raise SuffixNotSupported
    if len(prompts) > limits.max_client_batch_size:
        raise TooManyPrompts(limits.max_client_batch_size)
    if body.logprobs is not None and body.logprobs is not False:
        raise unsupported("logprobs")
    if body.response_format is not None and body.response_format.get("type") != "text":
        raise unsupported("response_format")
    n = openai.check_n(body.n, limits)
    runs_per_prompt = _runs_per_prompt(body, n, limits)
    completion_prompts.check_vocabulary(prompts, service.tokenizer.vocab_size)
    is_stream = bool(body.stream)
    call = _Call(
        body=body,
        prompts=[
            await completion_prompts.read_prompt(service, prompt, is_stream=is_stream)
            for prompt in prompts
        ],
        parameters=openai.sampling_parameters(body),
        n=n,
        runs_per_prompt=runs_per_prompt,
    )
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


def _mean_logprob(finished: Finished) -> float:
    tokens = finished[1]
    return sum(token.logprob for token in tokens) / len(tokens)


def _completion(service: Service, completion_id: str) -> Completion:
    return Completion(
        object="text_completion",
        id=completion_id,
        created=openai.now(),
        model=service.config.model_id,
        system_fingerprint=openai.system_fingerprint(service.config),
        choices=[],
    )


async def _run(service: Service, prompt: Prompt, parameters: GenerateParameters) -> Finished:
    async with await service.start(prompt, parameters) as generation:
        return generation, await generation.run()


def _choice(service: Service, call: _Call, index: int, run: Finished) -> CompletionChoice:
    generation, _ = run
    text = "" if call.only_echoes else generation.text
    return CompletionChoice(
        index,
        _echo(service, call, index, generation) + text,
        None,
        openai.finish_reason(_reason(generation), is_strict=service.config.openai_strict),
    )


def _reason(generation: Generation) -> FinishReason:
    assert generation.finish_reason is not None
    return generation.finish_reason


def _echo(service: Service, call: _Call, index: int, generation: Generation) -> str:
    """Return the prompt as it was read: all of it, or what `truncate` left."""
    if not call.body.echo:
        return ""
    prompt = call.prompts[index // call.n]
    if prompt.ids is None and call.body.truncate is None:
        return prompt.text
    adds_special_tokens = prompt.ids is None
    return service.tokenizer.decode(generation.prompt_ids, skip_special_tokens=adds_special_tokens)


@asynccontextmanager
async def _open(service: Service, call: _Call) -> AsyncIterator[list[Generation]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await service.start(prompt, parameters))
            for prompt, parameters in call.runs()
        ]


async def _send(
    service: Service, call: _Call, generations: list[Generation], stream: EventStream
) -> None:
    completion_id = openai.new_id("cmpl")
    encoders = [
        _ChunkEncoder(service, call, index, generation, completion_id)
        for index, generation in enumerate(generations)
    ]
    await openai.send_in_turn(stream, [(e.generation, e.encode) for e in encoders])
    if call.body.includes_usage:
        chunk = _completion(service, completion_id)
        chunk.usage = call.usage_of(generations)
        await stream.write(event(chunk))


class _ChunkEncoder:
    """Makes the chunks of one choice, one for each token."""

    def __init__(
        self,
        service: Service,
        call: _Call,
        index: int,
        generation: Generation,
        completion_id: str,
    ) -> None:
        self._service = service
        self._call = call
        self._index = index
        self._completion_id = completion_id
        self._is_strict = service.config.openai_strict
        self._echo = _echo(service, call, index, generation)  # until it is sent
        self.generation = generation

    def encode(self, tokens: list[GeneratedToken]) -> list[bytes]:
        return [event(self._chunk(token)) for token in tokens]

    def _chunk(self, token: GeneratedToken) -> Completion:
        chunk = _completion(self._service, self._completion_id)
        is_hidden = token.is_special or self._call.only_echoes
        text = self._echo + ("" if is_hidden else token.text)
        self._echo = ""
        chunk.choices = [CompletionChoice(self._index, text, None, self._reason(token))]
        if self._is_strict:
            if self._call.body.includes_usage:
                chunk.usage = None  # as every chunk but the last one of the stream
        elif token.finish_reason is not None:
            chunk.usage = self._call.usage_of([self.generation])
        return chunk

    def _reason(self, token: GeneratedToken) -> str | None:
        reason = token.finish_reason
        if self._is_strict:
            return reason and openai.finish_reason(reason, is_strict=True)
        return reason.value if reason is not None else ""
