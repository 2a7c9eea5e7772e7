"""The moments of a request's life, and what lies between them. Monotonic nanoseconds."""

from __future__ import annotations

import time


class Timing:
    """receipt → queued (validated) → started (first step) → ended."""

    __slots__ = ("ended_ns", "queued_ns", "received_ns", "started_ns")

    def __init__(self) -> None:
        self.received_ns = time.monotonic_ns()
        self.queued_ns = self.started_ns = self.ended_ns = self.received_ns

    def mark_queued(self) -> None:
        self.queued_ns = self.started_ns = self.ended_ns = time.monotonic_ns()

    def mark_ended(self, started_ns: int) -> None:
        self.started_ns = max(started_ns, self.queued_ns)
        self.ended_ns = max(time.monotonic_ns(), self.started_ns)

    @property
    def total_ns(self) -> int:
        return self.ended_ns - self.received_ns

    @property
    def validation_ns(self) -> int:
        return self.queued_ns - self.received_ns

    @property
    def queue_ns(self) -> int:
        return self.started_ns - self.queued_ns

    @property
    def inference_ns(self) -> int:
        return self.ended_ns - self.started_ns

    @property
    def total_s(self) -> float:
        return self.total_ns / 1e9

    @property
    def validation_s(self) -> float:
        return self.validation_ns / 1e9

    @property
    def queue_s(self) -> float:
        return self.queue_ns / 1e9

    @property
    def inference_s(self) -> float:
        return self.inference_ns / 1e9

    def time_per_token_s(self, num_tokens: int) -> float:
        return self.inference_s / max(1, num_tokens)
