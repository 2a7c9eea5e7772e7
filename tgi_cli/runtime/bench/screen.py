"""Where a bench prints: what a command gives to the runtime."""

from __future__ import annotations

from typing import Protocol


class BenchScreen(Protocol):
    """The report, and lines for people beside it."""

    @property
    def is_terminal(self) -> bool: ...

    def report(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...
