"""Whether a grammar can be used, asked of the worker once and then remembered.

The answer is the grammar in the form for the engine, or a `ValidationError` in TGI's words
(spec/http-api.md section 6.4, texts 25 and 26).
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from tgi_cli.errors import GenerationError, ValidationError, WorkerUnavailable
from tgi_cli.runtime.text.grammar import MAX_SOURCE_CHARACTERS
from tgi_cli.runtime.text.grammar_worker import CheckReply, Greeting
from tgi_cli.runtime.text.worker_process import WorkerEnded, WorkerProcess
from tgi_cli.runtime.types import Grammar

TIME_LIMIT_S = 3.0
_MAX_REMEMBERED = 256
_WORKER = "tgi_cli.runtime.text.grammar_worker"


class GrammarChecker:
    def __init__(
        self,
        tokenizer_json: str,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        *,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        greeting = msgspec.msgpack.encode(Greeting(tokenizer_json, vocab_size, eos_token_ids))
        self._worker = WorkerProcess(_WORKER, greeting, time_limit_s)
        self._time_limit_s = time_limit_s
        self._remembered: OrderedDict[Grammar, CheckReply] = OrderedDict()

    async def start(self) -> str | None:
        """Start the worker; return why this model's output can't be guided, or None.

        Raises:
            WorkerUnavailable: it doesn't come up.
        """
        return (await self._worker.start()).decode() or None

    async def close(self) -> None:
        await self._worker.close()

    async def check(self, grammar: Grammar) -> Grammar:
        """Return `grammar` as the engine takes it.

        Raises:
            ValidationError: it is malformed, unsupported or too expensive.
            GenerationError: the worker can't be started.
        """
        reply = self._remembered.get(grammar)
        if reply is None:
            reply = await self._ask(grammar)
        else:
            self._remembered.move_to_end(grammar)
        if reply.grammar is not None:
            return reply.grammar
        if reply.is_malformed:
            raise ValidationError(f"grammar is not valid: {reply.error}")
        raise ValidationError(f"cannot compile regex from schema: {reply.error}")

    async def _ask(self, grammar: Grammar) -> CheckReply:
        if len(grammar.source) > MAX_SOURCE_CHARACTERS:
            return CheckReply(None, f"it is longer than {MAX_SOURCE_CHARACTERS} characters")
        try:
            answer = await self._worker.ask(msgspec.msgpack.encode(grammar))
        except TimeoutError:
            return CheckReply(None, f"compiling it takes longer than {self._time_limit_s:g} s")
        except WorkerEnded:
            return CheckReply(None, "it can't be compiled within the memory limit")
        except WorkerUnavailable as exc:
            raise GenerationError("Server error: grammars can't be checked now") from exc
        # Only what the worker said: a time limit may have been passed for the machine's load.
        reply = self._remembered[grammar] = msgspec.msgpack.decode(answer, type=CheckReply)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return reply
