"""The guided sequences of an engine: compiling their grammars, their masks, what they accept.

    add ─► compile (a thread) ─► take_ready ─► scheduler … start_masks ─► forward ─► bitmasks
        ─► sample ─► accept ─► …

A request is held here until its matcher is ready, so that others never wait for a compilation.
Masks are computed beside the forward pass: both are native code without the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.grammar.llguidance_matcher import LlguidanceMatcher
from tgi_cli.runtime.engine.grammar.matcher import GrammarError, Matcher
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.text.grammar import compile_grammar, make_tokenizer
from tgi_cli.runtime.types import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor

_Masks = dict[int, "Tensor | GrammarError"]

_log = logging.getLogger(__name__)
_MAX_COMPILED = 64
_COMPILER_NICENESS = 10  # steps go first where cores are few


class Guides:
    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()  # the compiler thread's
        self._compiler = ThreadPoolExecutor(1, "grammar-compile", _lower_priority)
        self._masker = ThreadPoolExecutor(1, "grammar-masks")
        self._held: dict[int, tuple[NewRequest, Future[Matcher]]] = {}
        self._matchers: dict[int, Matcher] = {}
        self._guided: dict[int, Matcher] = {}  # of the step
        self._masks: Future[_Masks] | None = None
        self._failed: dict[int, GrammarError] = {}  # by a mask

    @property
    def is_loaded(self) -> bool:
        return self._tokenizer is not None

    @property
    def num_held(self) -> int:
        return len(self._held)

    @property
    def has_ready(self) -> bool:
        return any(matcher.done() for _, matcher in self._held.values())

    def is_guided(self, request_id: int) -> bool:
        """Whether the next mask of a request depends on its newest token."""
        return request_id in self._matchers

    def load(self) -> None:
        """Read the tokenizer's bytes, before there are requests to keep waiting."""
        config = self._config
        if config.tokenizer_json:
            try:
                self._tokenizer = make_tokenizer(
                    config.tokenizer_json, config.model.vocab_size, config.eos_token_ids
                )
            except (ValueError, KeyError, TypeError) as exc:  # no requests will ask for it
                _log.warning("event=guided_output_off reason=%s", exc)

    def add(self, request: NewRequest) -> None:
        """Begin to make the matcher of a request that has a grammar."""
        matcher = self._compiler.submit(self._make_matcher, request)
        self._held[request.request_id] = (request, matcher)

    def take_ready(self) -> list[tuple[NewRequest, GrammarError | None]]:
        """Return the requests whose matchers are there, or can't be made, as they were added."""
        ready: list[tuple[NewRequest, GrammarError | None]] = []
        for request_id, (request, future) in list(self._held.items()):
            if not future.done():
                continue
            del self._held[request_id]
            error = future.exception()
            if error is None:
                self._matchers[request_id] = future.result()
            elif not isinstance(error, GrammarError):
                _log.error("event=grammar_failed request=%d", request_id, exc_info=error)
                error = GrammarError("the grammar can't be compiled")
            ready.append((request, error))
        return ready

    def start_masks(self, request_ids: Sequence[int]) -> None:
        """Begin to compute the masks of those that are guided."""
        if self._masks is not None and not self._masks.cancel():
            self._masks.exception()  # of a run that failed; a matcher can't be used by two
        self._guided = {i: self._matchers[i] for i in request_ids if i in self._matchers}
        self._masks = self._masker.submit(_compute_masks, self._guided) if self._guided else None

    def bitmasks(self, request_ids: Sequence[int]) -> list[Tensor | None] | None:
        """Return the masks that `start_masks` began; None if nobody is guided."""
        if self._masks is None:
            return None
        # Where cores are few the thread may not have had its turn yet: then this one is quicker.
        is_late = self._masks.cancel()
        masks = _compute_masks(self._guided) if is_late else self._masks.result()
        self._masks = None
        found: list[Tensor | None] = []
        for request_id in request_ids:
            mask = masks.get(request_id)
            if isinstance(mask, GrammarError):
                self._failed[request_id] = mask
                mask = None
            found.append(mask)
        return found

    def accept(self, request_id: int, token_id: int) -> bool:
        """Tell a sequence's matcher, if it has one; return whether its output is complete.

        Raises:
            GrammarError: the sequence can't go on; its mask may have said so.
        """
        matcher = self._matchers.get(request_id)
        if matcher is None:
            return False
        if request_id in self._failed:
            raise self._failed[request_id]
        matcher.accept(token_id)
        return matcher.is_finished

    def forget(self, request_id: int) -> None:
        self._matchers.pop(request_id, None)
        self._failed.pop(request_id, None)
        held = self._held.pop(request_id, None)
        if held is not None:
            held[1].cancel()

    # In the compiler's thread.

    def _make_matcher(self, request: NewRequest) -> Matcher:
        assert request.grammar is not None
        assert self._tokenizer is not None
        matcher = LlguidanceMatcher(
            self._compile(request.grammar, self._tokenizer).deep_copy(),
            self._tokenizer,
            self._config.eos_token_ids,
            ignores_end=request.ignore_eos,
        )
        for token_id in request.output_ids:
            matcher.accept(token_id)
        return matcher

    def _compile(self, grammar: Grammar, tokenizer: LLTokenizer) -> LLMatcher:
        compiled = self._compiled.get(grammar)
        if compiled is not None:
            self._compiled.move_to_end(grammar)
            return compiled
        compiled = compile_grammar(grammar, tokenizer)
        if not compiled.is_error():
            compiled.compute_bitmask()  # copies start with what the first mask has worked out
        if compiled.is_error():
            raise GrammarError("the grammar can't be compiled")
        self._compiled[grammar] = compiled
        if len(self._compiled) > _MAX_COMPILED:
            self._compiled.popitem(last=False)
        return compiled


def _compute_masks(matchers: dict[int, Matcher]) -> _Masks:
    masks: _Masks = {}
    for request_id, matcher in matchers.items():
        try:
            masks[request_id] = matcher.bitmask()
        except GrammarError as exc:
            masks[request_id] = exc
    return masks


def _lower_priority() -> None:
    if sys.platform == "linux":  # where a thread has a niceness of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _COMPILER_NICENESS)
