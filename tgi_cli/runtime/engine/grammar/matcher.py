"""Where the output of one sequence stands in its grammar.

A matcher is a function of the grammar and the tokens accepted so far and of nothing else, so a
guided row of a batch depends on itself only, and one that is made anew by accepting the same tokens
goes on as the old one would have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class GrammarError(Exception):
    """The matcher can't go on; the text is safe to show to the client."""


class Matcher(Protocol):
    """Every method but `is_finished` raises `GrammarError`, and then goes on to do so."""

    @property
    def is_finished(self) -> bool:
        """Whether the output is complete and nothing may follow it."""

    def bitmask(self) -> Tensor:
        """Return what may come next, at least one token: [ceil(V / 32)] int32, as the sampler's.

        The end of sequence is among it where the output could end, and alone where it must.
        """

    def accept(self, token_id: int) -> None:
        """Go on by a token that the mask allowed."""
