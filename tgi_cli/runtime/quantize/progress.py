"""How a run tells how far it is: to a terminal, to a log, or to a program. Others print."""

from __future__ import annotations

import time
from typing import Protocol


class QuantizeScreen(Protocol):
    """What a command gives to the runtime. The report goes to stdout, all else to stderr."""

    def say(self, text: str) -> None:
        """Tell one thing that happens."""

    def step(self, name: str) -> None:
        """Tell that a part of the current layer is done."""

    def advance(self, num_done: int, total: int, left_s: float) -> None:
        """Tell that a layer is done and stored, and how long the rest may take."""

    def report(self, text: str, as_json: bytes) -> None:
        """Show the result: as people or as programs read it."""


class LayerClock:
    """Guesses the time that is left from the layers that this run has solved."""

    def __init__(self, num_layers: int) -> None:
        self._num_left = num_layers
        self._num_done = 0
        self._began = time.monotonic()

    def left_s(self) -> float:
        """Return seconds for the rest. Called once after each layer."""
        self._num_done += 1
        self._num_left -= 1
        return (time.monotonic() - self._began) / self._num_done * self._num_left
