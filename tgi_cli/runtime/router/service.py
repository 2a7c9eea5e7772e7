"""Admit a request, validate and tokenize it, and hand it to the engine.

permit ─► checks ─► tokenize (thread pool) ─► lengths ─► grammar (worker process)
    ─► engine ─► `Generation`: detokenize, stop strings
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from tgi_cli.errors import GenerationError, ValidationError
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.ipc.client import EngineClient
from tgi_cli.runtime.ipc.messages import NewRequest, StepOutput
from tgi_cli.runtime.router import validation
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.heartbeat import Heartbeat
from tgi_cli.runtime.router.metrics import Metrics, failure_of
from tgi_cli.runtime.router.observation import Observation
from tgi_cli.runtime.router.permits import Permits
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.tracing import start_tracing
from tgi_cli.runtime.text.chat_template import ChatTemplate
from tgi_cli.runtime.text.grammar_checker import GrammarChecker
from tgi_cli.runtime.text.marked_encoder import MarkedTextEncoder
from tgi_cli.runtime.text.marked_text import MarkedText
from tgi_cli.runtime.text.tokenizer import Tokenizer
from tgi_cli.runtime.types import SamplingParams

T = TypeVar("T")

_NO_SPAN = nullcontext()
_NO_LIMIT = nullcontext()
_BIG_TEXT_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text to go on from, and how to read it."""

    text: str
    add_special_tokens: bool = True  # a chat template writes its own
    is_stream: bool = False
    marked: MarkedText | None = None  # `text` too, where special tokens in it are text
    ids: tuple[int, ...] | None = None  # instead of the text's, and within the vocabulary
    is_scored: bool = False  # whether the log-probabilities of its own tokens are wanted
    num_top: int = 0  # best tokens to report for each of its own


class Service:
    """Everything that routes share. Owns the permits, the thread pool and the metrics."""

    def __init__(
        self,
        config: RouterConfig,
        engine: EngineClient,
        tokenizer: Tokenizer,
        chat_template: ChatTemplate,
        grammar_checker: GrammarChecker,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.marked_encoder = MarkedTextEncoder(tokenizer)
        self.chat_template = chat_template
        self._grammar_checker = grammar_checker
        self.metrics = Metrics(config.limits)
        self.tracing = start_tracing(config)
        self.metrics.set("tgi_batch_max_total_tokens", config.max_batch_total_tokens)
        self.metrics.set("tgi_kv_cache_blocks_total", engine.num_blocks)
        self._engine = engine
        self._permits = Permits(config.limits.max_concurrent_requests)
        self._threads = ThreadPoolExecutor(config.validation_workers, "tokenize")
        self._big_listing = asyncio.Semaphore(1)
        self._request_ids = itertools.count()
        self._idle = asyncio.Event()
        self._idle.set()
        self.num_open = 0  # handlers at work, their replies not yet sent
        self.is_draining = False
        self.last_step_failed = False
        self.heartbeat = Heartbeat(engine, config.stall_timeout_s)
        self._probe: asyncio.Future[None] | None = None  # one at a time
        engine.add_step_listener(self._step_done)

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self.tracing is not None:
            await self.tracing.close()

    def check_health(self) -> bool:
        """Return, from state and so at once, whether a generation request would be answered now.

        After a failed step only another step can tell, and a server that is taken out of service
        for it gets no requests; so one token is generated in the background.
        """
        is_running = self.heartbeat.is_well
        if is_running and self.last_step_failed and self._probe is None:
            self._probe = asyncio.ensure_future(self._run_probe())
        return is_running and not self.is_draining and not self.last_step_failed

    async def _run_probe(self) -> None:
        request = NewRequest(next(self._request_ids), [0], 1, SamplingParams())
        try:
            await self._engine.submit(request).next_outputs()
        except GenerationError:
            pass  # it stays unhealthy; the next check tries again
        finally:
            self._probe = None

    def enter(self) -> None:
        """Count a handler in; `leave` counts it out."""
        self.num_open += 1
        self._idle.clear()

    def leave(self) -> None:
        self.num_open -= 1
        if self.num_open == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        await self._idle.wait()

    def _step_done(self, step: StepOutput) -> None:
        if step.stats.batch_size or step.failures:
            self.last_step_failed = bool(step.failures) and not step.outputs
        self.metrics.step_done(step)
        if self.tracing is not None:
            self.tracing.step_done(step)

    def trace(self, name: str) -> AbstractContextManager[object]:
        """Return a span for the `with` block, if this server traces."""
        return _NO_SPAN if self.tracing is None else self.tracing.span(name)

    async def tokenize(self, prompt: Prompt) -> list[int]:
        encode = partial(
            self.tokenizer.encode, prompt.text, add_special_tokens=prompt.add_special_tokens
        )
        if prompt.marked is not None:
            encode = partial(self.marked_encoder.encode, prompt.marked)
        with self.trace("tokenize"):
            return await self.off_loop(encode)

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Run text work in the thread pool."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def show_tokens(self, text: str, make_reply: Callable[[], object]) -> msgspec.Raw:
        """Run what lists the tokens of `text` in the thread pool; return its result as JSON.

        A list is a hundred times as large as its text, so there is one of a big text at a time.
        """

        def work() -> msgspec.Raw:
            return msgspec.Raw(msgspec.json.encode(make_reply()))

        async with self._big_listing if len(text) > _BIG_TEXT_CHARACTERS else _NO_LIMIT:
            return await self.off_loop(work)

    async def start(self, prompt: Prompt, parameters: GenerateParameters) -> Generation:
        """Admit and submit a request; use the result as a context manager.

        Raises:
            OverloadedError: no permit is free.
            ValidationError: the request asks for what it can't have.
            GenerationError: there is no engine.
        """
        self.metrics.count("tgi_request_count")
        return await self._admit(prompt, parameters, is_part=False)

    async def start_part(self, prompt: Prompt, parameters: GenerateParameters) -> Generation:
        """Like `start`, for one of several runs of a request that the caller has `counted`."""
        return await self._admit(prompt, parameters, is_part=True)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request in, and the failure that ends the block, if one does."""
        self.metrics.count("tgi_request_count")
        try:
            yield
        except BaseException as exc:
            self.metrics.fail(failure_of(exc))
            raise

    async def _admit(
        self, prompt: Prompt, parameters: GenerateParameters, *, is_part: bool
    ) -> Generation:
        observation = Observation(self.metrics, self.tracing, parameters, is_part=is_part)
        try:
            if prompt.is_stream:
                validation.check_stream_only(parameters)
            self._permits.take()
            try:
                return await self._submit(prompt, parameters, observation)
            except BaseException:
                self._permits.give_back()
                raise
        except BaseException as exc:
            observation.failed(exc)
            raise

    async def _submit(
        self, prompt: Prompt, parameters: GenerateParameters, observation: Observation
    ) -> Generation:
        limits = self.config.limits
        observation.received(prompt.text)
        with self.trace("validate"):
            checked = validation.check_parameters(
                parameters,
                prompt.text if prompt.ids is None else prompt.ids,
                self.config,
                self.tokenizer.vocab_size,
            )
            prompt_ids, max_new_tokens = validation.fit_lengths(
                await self._read(prompt, checked), checked, limits
            )
            if not prompt_ids:
                raise ValidationError("`inputs` cannot be empty")
            grammar = validation.parse_grammar(parameters, self.config)
            if grammar is not None:
                grammar = await self._grammar_checker.check(grammar)
        request = NewRequest(
            next(self._request_ids),
            prompt_ids,
            max_new_tokens,
            checked.sampling,
            ignore_eos=checked.ignore_eos,
            top_n_tokens=checked.top_n_tokens,
            scores_prompt=prompt.is_scored or checked.scores_prompt,
            prompt_top_n=prompt.num_top,
            grammar=grammar,
        )
        observation.queued(request.request_id, len(prompt_ids), max_new_tokens)
        with self.trace("schedule"):
            record = self._engine.submit(request)
        return Generation(self, record, checked, observation)

    async def _read(self, prompt: Prompt, checked: validation.CheckedParameters) -> Sequence[int]:
        """Return the prompt's ids. Raises `ValidationError` early for a text far too long."""
        if prompt.ids is not None:
            return prompt.ids
        limits = self.config.limits
        if prompt.add_special_tokens:  # a chat has its images in parts of their own
            validation.check_modality(prompt.text)
        validation.check_bounds(prompt.text, checked, limits, self.tokenizer.bounds)
        for head in validation.heads_to_count(prompt.text, checked, limits):
            head_ids = await self.tokenize(Prompt(head, prompt.add_special_tokens))
            validation.check_head(len(head_ids), checked, limits)
        return await self.tokenize(prompt)

    def release(self, request_id: int) -> None:
        self._permits.give_back()
        self._engine.abort(request_id)
