"""What a format says of a tensor whose numbers it can't be."""

from __future__ import annotations


class BadTensorError(ValueError):
    """`suffix` names the tensor within its projection; the message says what is wrong with it."""

    def __init__(self, suffix: str, reason: str) -> None:
        super().__init__(reason)
        self.suffix = suffix
