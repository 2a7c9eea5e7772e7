"""What is kept of each request: moments, deliveries, tokens, and how it ended.

Moments are nanoseconds of one monotonic clock, counted from the run's start; the clock is shared by
all processes of a machine. `None`: it never came to that. Spec: bench.md sections 2, 4 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Phase = Literal["warmup", "measure", "tail"]
"""tail: sent only to keep the load up until the last measured request is done."""

Failure = Literal[
    "dns",
    "refused",
    "connect_timeout",
    "tls",
    "first_token_timeout",
    "idle_timeout",
    "total_timeout",
    "http_4xx",
    "http_429",
    "http_5xx",
    "stream_error",  # an error event after status 200
    "truncated",  # no end mark and no finish reason
    "protocol",  # events or JSON that can't be read
    "empty",  # no token at all
    "reset",
    "dropped",  # still behind --max-concurrency when the drain was over
    "unfinished",  # still open when the drain was over
    "cancelled",  # hung up on purpose (--cancel); no failure of the server's
]

TokenSource = Literal["token_ids", "usage_continuous", "usage_final", "tokenizer", "events"]
"""How output tokens were counted, the best source first."""


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request of a stage. Sequences are parallel: one entry per delivery."""

    index: int  # in the plan of its stage, whatever the number of workers
    phase: Phase
    worker: int = 0
    user: int | None = None  # virtual user of a closed loop
    turn: int | None = None  # of a conversation, from 0

    sched: int  # when the plan says that it leaves
    wake: int | None = None  # when the client took it up
    gate: int | None = None  # when --max-concurrency let it through
    conn: int | None = None  # connection ready
    conn_reused: bool = False
    sent: int | None = None  # handed to the socket as a whole
    headers: int | None = None
    first: int | None = None  # first delivery that holds a token
    first_content: int | None = None  # first token that isn't reasoning
    last: int | None = None  # last delivery that holds a token
    end: int | None = None  # end mark or end of the body; of a failure: when it was known

    deliveries: Sequence[int] = []  # moments of the deliveries that hold tokens
    tokens: Sequence[int] = []  # tokens of each
    num_events: int = 0  # events that hold tokens

    planned_input_tokens: int | None = None
    planned_output_tokens: int | None = None
    input_tokens: int | None = None  # as the server counts
    own_input_tokens: int | None = None  # as the tokenizer counts
    cached_tokens: int | None = None
    output_tokens: int = 0  # the sum of `tokens`
    own_output_tokens: int | None = None
    token_source: TokenSource | None = None

    status: int | None = None
    finish_reason: str | None = None
    failure: Failure | None = None
    message: str | None = None  # the first of its class keeps it
    num_retries: int = 0
    server_queue_s: float | None = None
    text: str | None = None  # with --save-text

    @property
    def is_ok(self) -> bool:
        return self.failure is None

    def spans(self) -> list[tuple[int, int]]:
        """Return, for each delivery but the first, the gap before it in ns and its tokens."""
        return [
            (now - before, count)
            for before, now, count in zip(
                self.deliveries, self.deliveries[1:], self.tokens[1:], strict=False
            )
        ]


class WorkerSample(msgspec.Struct, kw_only=True, array_like=True):
    """What a worker saw of itself in one slice of a stage."""

    at: int  # end of the slice, ns from the run's start
    loop_lags: list[int]  # ns by which a sleep of 10 ms came late
    cpu_share: float  # of one core
    gc_pause: int  # longest, ns
    num_events: int
    num_deliveries: int
    worker: int = 0


class StageRecord(msgspec.Struct, kw_only=True):
    """All that a stage left behind; metrics are computed from this alone."""

    key: str  # such as "concurrency=8"
    repeat: int
    requests: list[RequestRecord]
    samples: list[WorkerSample]
    w0: int  # the window: requests with w0 <= sched < w1 are measured
    w1: int
    warmup_s: float = 0.0  # how long the warm-up before it took
    drained: int  # when the last of them had ended, or was given up
    num_workers: int
    is_closed_loop: bool
    has_cap: bool
    num_planned: int  # in the window
    offered_req_s: float | None = None  # of an open loop
    stopped_by: Literal["requests", "duration", "errors", "ci", "interrupt", "unreachable"] = (
        "duration"
    )
    clock_jumped: bool = False
    metrics_before: dict[str, float] = {}  # the server's own series
    metrics_after: dict[str, float] = {}
    metrics_series: list[dict[str, float]] = []
