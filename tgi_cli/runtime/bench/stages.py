"""What a stage is asked to do: one load point, and how long. Spec: bench.md sections 6 and 8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

Arrival = Literal["constant", "poisson", "gamma"]
LoadKind = Literal["concurrency", "rate", "ramp", "burst", "offline", "trace", "conversations"]


class StageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One load point. Times in seconds."""

    key: str  # "concurrency=8", "rate=4", …: names the stage in results, SLOs and comparisons
    kind: LoadKind
    value: float = 0.0  # users, requests per second or requests at once
    ramp_to: float | None = None
    ramp_kind: Literal["rate", "concurrency"] | None = None
    starts_by: Literal["rate", "concurrency"] | None = None  # conversations: what `value` is
    arrival: Arrival = "poisson"
    burstiness: float = 1.0  # gamma's shape
    think_time_s: float = 0.0
    stagger_s: float | None = None  # over which the users' starts are spread; None: one mean e2e
    max_concurrency: int | None = None
    duration_s: float | None = None
    num_requests: int | None = None
    num_repeats: int = 1  # of a burst: request i belongs to burst i // value
    warmup_s: float = 10.0
    warmup_requests: int | None = None
    drain_s: float = 60.0
    keeps_tail_load: bool = True

    @property
    def is_closed_loop(self) -> bool:
        by = self.ramp_kind or self.starts_by
        return self.kind in ("concurrency", "burst") or by == "concurrency"


class PromptInput(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, before a protocol has made a body of it. One of the three is given."""

    text: str | None = None
    token_ids: list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    fields: dict[str, Any] = {}  # more fields of the body, as a data set may bring them


BodyMaker = Callable[[PromptInput, int | None], bytes]
"""A protocol's `body`: the JSON for an input and the output tokens wanted (None: the server's)."""


class PlannedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the plan, its body made before the stage begins.

    The body of a later turn of a conversation holds the new part only: what was said before, the
    server's answers included, is put in front of it when it is sent.
    """

    index: int
    sched_s: float | None  # from the stage's start; None: when a user is free (closed loop)
    body: bytes  # JSON, as it goes on the wire
    input_tokens: int | None = None
    output_tokens: int | None = None
    conversation: int | None = None
    turn: int | None = None
    think_s: float | None = None  # from the end of the turn before
    answer: str | None = None  # recorded: history holds it in place of the server's
    cancel_after_s: float | None = None  # hang up then
