"""Random numbers of a run: one seed, and for each purpose a stream of its own.

A stream depends on its names alone, so that arrivals don't change with the lengths, nor a request
with the number of requests before it. Sixteen bytes of BLAKE2 over the names are the key of a
counter-based generator (Philox).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

PlanPhase = Literal["warmup", "measure"]
Purpose = Literal[
    "arrivals", "input lengths", "output lengths", "text", "prefix", "group", "order", "cancel"
]


def generator(*names: object) -> np.random.Generator:
    """Return the generator of these names; the same names give the same numbers."""
    digest = hashlib.blake2b("\0".join(map(str, names)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of one phase of one stage."""

    seed: int
    stage: str  # its key
    phase: PlanPhase
    nonce: str | None = None  # of this run of the stage; None: inputs are the same in every run

    def of(self, purpose: Purpose, index: int = 0) -> np.random.Generator:
        """Return the stream of a purpose, by default one for all requests."""
        return generator(self.seed, self.stage, self.phase, purpose, index)

    def fresh(self, index: int) -> np.random.Generator | None:
        """Return what makes request `index` of this run unlike any before; None: nothing does."""
        return None if self.nonce is None else generator(self.nonce, self.stage, self.phase, index)

    def named(self, kind: str, name: object) -> np.random.Generator:
        """Return the stream of something that several requests of this phase share."""
        return generator(self.seed, self.nonce, self.stage, self.phase, kind, name)

    def shared(self, purpose: Purpose, index: int) -> np.random.Generator:
        """Return a stream that the phases of this run of the stage have in common."""
        return generator(self.seed, self.nonce, self.stage, purpose, index)
