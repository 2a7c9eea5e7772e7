"""Plans beside those of the planner: what is ready, and how much a closed loop begins with."""

from __future__ import annotations

from tgi_cli.runtime.bench.stages import PlannedRequest, StageSpec

_FIRST_REQUESTS_A_USER = 4
_MIN_FIRST_REQUESTS = 64


class ReadyPlan:
    """Requests that were made before."""

    is_whole = True

    def __init__(self, requests: list[PlannedRequest]) -> None:
        self.requests = requests

    def more(self, _count: int) -> list[PlannedRequest]:
        return []


def first_count(spec: StageSpec) -> int:
    """Return how many requests are made before users begin; more follow as they need them."""
    users = int(max(spec.value, spec.ramp_to or 0.0))
    if spec.kind == "burst":
        return users * spec.num_repeats
    return max(users * _FIRST_REQUESTS_A_USER, _MIN_FIRST_REQUESTS)
