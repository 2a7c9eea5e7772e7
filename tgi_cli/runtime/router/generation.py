"""One running request: its tokens as they come, and the text that they make.

An async context manager whose exit, however it comes, aborts what still runs and returns the
permit, so that a client that goes away frees its blocks. Stop strings end a request here, since
only this side has text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

from tgi_cli.runtime.ipc.client import OpenRequest
from tgi_cli.runtime.ipc.messages import PromptScore, SequenceOutput
from tgi_cli.runtime.router import validation
from tgi_cli.runtime.router.observation import Observation
from tgi_cli.runtime.router.streaming import EventStream
from tgi_cli.runtime.router.tokens import GeneratedToken, PromptToken, read_prompt, read_scores
from tgi_cli.runtime.text.detokenizer import Detokenizer
from tgi_cli.runtime.text.stop_strings import StopStringMatcher
from tgi_cli.runtime.types import FinishReason

if TYPE_CHECKING:
    from types import TracebackType

    from tgi_cli.runtime.router.service import Service  # which makes these


class Generation:
    """A running request and the text that it has so far."""

    def __init__(
        self,
        service: Service,
        record: OpenRequest,
        checked: validation.CheckedParameters,
        observation: Observation,
    ) -> None:
        self._service = service
        self._observation = observation
        self._record = record
        self._tokenizer = service.tokenizer
        self._detokenizer = Detokenizer(service.tokenizer, record.request.prompt_ids)
        self._stops = StopStringMatcher(checked.stop)
        self._pieces: list[str] = []
        self._awaits_prompt_scores = record.request.scores_prompt
        self._prompt_scores: list[PromptScore] = []
        self._prompt_tokens: list[PromptToken] = []
        self.seed = checked.shown_seed
        self.timing = observation.timing
        self.num_tokens = 0
        self.finish_reason: FinishReason | None = None

    @property
    def prompt_ids(self) -> list[int]:
        return self._record.request.prompt_ids

    @property
    def input_length(self) -> int:
        return len(self.prompt_ids)

    @property
    def text(self) -> str:
        """What was generated so far, without special tokens."""
        return "".join(self._pieces)

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._service.release(self._record.request.request_id)
        if self.finish_reason is None:
            self._observation.failed(exc)

    @property
    def prompt_tokens(self) -> list[PromptToken]:
        """The prompt with its scores, if they were asked for, from the first new token on."""
        return self._prompt_tokens

    async def tokens(self) -> AsyncIterator[list[GeneratedToken]]:
        """Yield tokens as they come, all of a step at once; the last has a finish reason."""
        while self.finish_reason is None:
            yield await self._next()

    async def _next(self) -> list[GeneratedToken]:
        tokens = self._take(await self._record.next_outputs())
        if self._awaits_prompt_scores:
            self._awaits_prompt_scores = False
            # Thousands of tokens to decode: other streams go on meanwhile.
            read = partial(read_prompt, self._tokenizer, self.prompt_ids, self._prompt_scores)
            self._prompt_tokens = await self._service.off_loop(read)
            self._prompt_scores = []
        return tokens

    async def stream_to(
        self, stream: EventStream, encode: Callable[[list[GeneratedToken]], bytes]
    ) -> None:
        """Send the tokens as they come, as the events that `encode` makes of them.

        To a client that reads fast enough they go as soon as the engine's message is read. For one
        that doesn't, they wait as ids, and no request has more of them than its limit.
        """

        def send(outputs: list[SequenceOutput]) -> bool:
            stream.send(encode(self._take(outputs)))
            return self.finish_reason is None and not stream.is_behind

        with self._service.trace("async_stream"):
            while self.finish_reason is None:
                if stream.is_behind or self._awaits_prompt_scores:
                    await stream.write(encode(await self._next()))
                else:
                    await self._record.push_to(send)

    async def run(self) -> list[GeneratedToken]:
        """Return all tokens when the last has come."""
        return [token async for tokens in self.tokens() for token in tokens]

    def _take(self, outputs: list[SequenceOutput]) -> list[GeneratedToken]:
        """Return the tokens of `outputs`, up to one that ends the sequence."""
        tokens: list[GeneratedToken] = []
        for output in outputs:
            if output.prompt_scores:
                self._prompt_scores = output.prompt_scores
            last = len(output.token_ids) - 1
            for index, token_id in enumerate(output.token_ids):
                if self.finish_reason is not None:
                    break
                reason = output.finish_reason if index == last else None
                logprob = output.logprobs[index] if output.logprobs else 0.0
                token = self._make_token(token_id, logprob, reason)
                if output.top_tokens:
                    token.top_tokens = read_scores(self._tokenizer, output.top_tokens[index])
                tokens.append(token)
        self._observation.tokens_came(len(tokens))
        return tokens

    def _make_token(
        self, token_id: int, logprob: float, reason: FinishReason | None
    ) -> GeneratedToken:
        self.num_tokens += 1
        text = self._detokenizer.push(token_id)
        is_special = self._tokenizer.is_special(token_id)
        keep = self._stops.push(text)
        if keep is not None and reason is None:
            text, reason = text[:keep], FinishReason.STOP_SEQUENCE
        if not is_special:
            self._pieces.append(text)
        if reason is not None:
            self._finish(reason)
        return GeneratedToken(token_id, text, logprob, is_special, reason)

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._observation.ended(self._record.started_ns)
        if not self._observation.is_part:
            self.record_success()

    def record_success(self) -> None:
        """Put the request into metrics, log and trace."""
        self._observation.succeeded(self.num_tokens, self.seed, self.text)
