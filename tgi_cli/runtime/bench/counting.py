"""How many tokens a reply has, and which delivery brought how many.

The total comes from the server when it gives one. Tokens of pieces are never summed up for a total,
since pieces encode to more tokens than the whole; they only weigh the shares. Spec: bench.md
section 4.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import msgspec

from tgi_cli.runtime.bench.records import TokenSource

CountTokens = Callable[[str], int]
"""Tokens of a text as the tokenizer counts them, special ones left out."""


@dataclass(frozen=True, slots=True)
class Deliveries:
    """What the deliveries of one reply held. Sequences are parallel."""

    at: Sequence[int]  # ns from the run's start
    num_events: Sequence[int]
    num_ids: Sequence[int]  # tokens that were named one by one
    usage: Sequence[int]  # the server's count after it; -1: none yet
    text_ends: Sequence[int]  # where its part of `text` ends
    text: str = ""
    total: int | None = None  # the server's count at the end


class PackedDeliveries(msgspec.Struct, kw_only=True, array_like=True):
    """The same between two processes of a machine: arrays as bytes, 24 of them a delivery."""

    at: bytes = b""  # int64
    num_events: bytes = b""  # this and the others int32
    num_ids: bytes = b""
    usage: bytes = b""
    text_ends: bytes = b""
    text: str = ""
    total: int | None = None

    def unpacked(self) -> Deliveries:
        return Deliveries(
            at=array("q", self.at),
            num_events=array("i", self.num_events),
            num_ids=array("i", self.num_ids),
            usage=array("i", self.usage),
            text_ends=array("i", self.text_ends),
            text=self.text,
            total=self.total,
        )


def count_tokens(
    deliveries: Deliveries, count_text: CountTokens | None
) -> tuple[list[int], TokenSource | None]:
    """Return the tokens of each delivery and where the count comes from, the best source first."""
    if not deliveries.at:
        return [], None
    total = deliveries.total
    if all(deliveries.num_ids):
        if total is None or total == sum(deliveries.num_ids):
            return list(deliveries.num_ids), "token_ids"
        return share(total, deliveries.num_ids), "usage_final"
    if len(deliveries.at) > 1 and deliveries.usage[0] >= 0:
        counts = [max(now - before, 0) for before, now in pairwise((0, *deliveries.usage))]
        if total is None or total == sum(counts):
            return counts, "usage_continuous"
        counts[-1] = max(counts[-1] + total - sum(counts), 0)  # told in an event without text
        if total == sum(counts):
            return counts, "usage_continuous"
    source: TokenSource = "usage_final"
    if total is None:
        if count_text is None:
            return list(deliveries.num_events), "events"
        total, source = count_text(deliveries.text), "tokenizer"
    if count_text is None or total == sum(deliveries.num_events):
        return share(total, deliveries.num_events), source
    return share(total, [count_text(piece) for piece in _pieces(deliveries)]), source


def _pieces(deliveries: Deliveries) -> list[str]:
    bounds = pairwise((0, *deliveries.text_ends))
    return [deliveries.text[start:end] for start, end in bounds]


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `weights`: the sum is exact, the first part rounded up."""
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    bounds = [-(-total * up_to // whole) for up_to in accumulate(weights)]
    return [bound - before for before, bound in pairwise((0, *bounds))]
