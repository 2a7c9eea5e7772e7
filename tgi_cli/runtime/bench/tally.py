"""A worker's live counters: cheap to keep in the hot loop, sent four times a second.

Histograms have eight buckets an octave of microseconds, so that a value is known within 9 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

BUCKETS_PER_OCTAVE = 8


def bucket_of(ns: float) -> int:
    """Return the bucket of a duration; everything up to a microsecond is in bucket 0."""
    us = ns / 1e3
    return int(BUCKETS_PER_OCTAVE * math.log2(us)) if us > 1 else 0


def seconds_of(bucket: int) -> float:
    """Return the middle of a bucket."""
    return 1e-6 * math.exp2((bucket + 0.5) / BUCKETS_PER_OCTAVE)


def percentile(histogram: dict[int, int], share: float) -> float | None:
    """Return the nearest-rank percentile in seconds, None of an empty histogram."""
    rank = math.ceil(share * sum(histogram.values()))
    for bucket in sorted(histogram):
        rank -= histogram[bucket]
        if rank <= 0:
            return seconds_of(bucket)
    return None


def added(histograms: Iterable[dict[int, int]]) -> dict[int, int]:
    """Return the histogram of all values of several."""
    whole: Counter[int] = Counter()
    for histogram in histograms:
        whole.update(histogram)
    return whole


class Tally:
    """Counts since the stage began; the histograms hold what came since they were taken."""

    def __init__(self) -> None:
        self.num_sent = 0
        self.num_ok = 0
        self.num_failed_in_a_row = 0
        self.num_tokens = 0
        self.num_deliveries = 0
        self.num_input_tokens = 0  # of requests that were well
        self.sum_e2e = 0  # ns, of the same
        self.failures: dict[str, int] = {}
        self.first_message: str | None = None
        self.messages: dict[str, str] = {}  # the first of each class
        self.ttft: dict[int, int] = {}
        self.itl: dict[int, int] = {}
        self.lag: dict[int, int] = {}

    def count(self, histogram: dict[int, int], ns: float) -> None:
        bucket = bucket_of(ns)
        histogram[bucket] = histogram.get(bucket, 0) + 1

    def well(self, e2e: int, input_tokens: int) -> None:
        self.num_ok += 1
        self.sum_e2e += e2e
        self.num_input_tokens += input_tokens

    def failed(self, failure: str, message: str | None) -> str | None:
        """Count a failure; return the message if it is the first of its class."""
        self.failures[failure] = self.failures.get(failure, 0) + 1
        if failure not in ("cancelled", "dropped", "unfinished") and self.num_ok == 0:
            self.num_failed_in_a_row += 1
        if message is None or failure in self.messages:
            return None
        self.messages[failure] = message
        self.first_message = self.first_message or f"{failure}: {message}"
        return message

    def take_histograms(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        taken = self.ttft, self.itl, self.lag
        self.ttft, self.itl, self.lag = {}, {}, {}
        return taken
