"""`Matcher` by llguidance: an Earley parser over lexemes, masks over a trie of the tokens' bytes.

https://github.com/guidance-ai/llguidance. Its work is in native code without the interpreter's
lock; its limits end a grammar that gets too expensive as an error of its own sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tgi_cli.runtime.engine.grammar.matcher import GrammarError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

_MAX_REASON = 200  # characters


class LlguidanceMatcher:
    """`eos_token_ids` are the model's; empty if it has none, so that nothing can spell the end.

    With `ignores_end` the end is allowed only where nothing else is.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        tokenizer: LLTokenizer,
        eos_token_ids: tuple[int, ...],
        *,
        ignores_end: bool,
    ) -> None:
        self._matcher = matcher
        self._eos_token_ids = eos_token_ids
        self._end_ids = list(tokenizer.eos_tokens)
        self._avoids_end = ignores_end or not eos_token_ids
        self.is_finished = False

    def bitmask(self) -> Tensor:
        mask, only_end = self._compute()
        if only_end and not self._eos_token_ids:
            raise GrammarError("the grammar allows no token")
        return torch.from_numpy(mask.view(np.int32))

    def accept(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)
        self._check()
        if self._eos_token_ids:
            self.is_finished = token_id in self._end_ids
        else:  # no token will say that this was the last one
            self.is_finished = self._matcher.is_stopped() or self._compute()[1]

    def _compute(self) -> tuple[NDArray[np.uint32], bool]:
        """Return the mask, and whether it allows the end alone."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32).copy()
        self._check()
        if not self._avoids_end:
            return mask, False
        rest = mask.copy()
        for end_id in self._end_ids:
            rest[end_id // 32] &= np.uint32(0xFFFFFFFF ^ (1 << end_id % 32))
        return (rest, False) if rest.any() else (mask, True)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().partition("\n")[0][:_MAX_REASON]
            raise GrammarError(f"the grammar can't be followed any further ({reason})")
