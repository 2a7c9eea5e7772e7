"""Whether the engine makes progress, told from what it last said: a look costs it nothing.

An engine that has work and is silent for longer than `stall_timeout_s` is stalled. An idle one
never is, and a full queue is no illness as long as steps come.
"""

from __future__ import annotations

import time

from tgi_cli.runtime.ipc.client import EngineClient


class Heartbeat:
    def __init__(self, engine: EngineClient, stall_timeout_s: float) -> None:
        self._engine = engine
        self._stall_timeout_s = stall_timeout_s
        self._started_ns = time.monotonic_ns()

    @property
    def is_alive(self) -> bool:
        return not self._engine.closed.is_set()

    @property
    def is_well(self) -> bool:
        """Whether nothing calls for a restart."""
        return self.is_alive and not self.is_stalled

    @property
    def is_busy(self) -> bool:
        return bool(self._engine.open_requests)

    @property
    def is_stalled(self) -> bool:
        newest_ns = max(self._engine.last_step_ns, self._engine.busy_since_ns)
        return self.is_busy and _age_s(newest_ns) > self._stall_timeout_s

    @property
    def num_waiting(self) -> int:
        """Requests that no step has begun."""
        return sum(record.started_ns == 0 for record in self._engine.open_requests.values())

    @property
    def num_running(self) -> int:
        return len(self._engine.open_requests) - self.num_waiting

    @property
    def last_step_age_s(self) -> float | None:
        """None before the first step."""
        last_step_ns = self._engine.last_step_ns
        return _age_s(last_step_ns) if last_step_ns else None

    @property
    def uptime_s(self) -> float:
        return _age_s(self._started_ns)


def _age_s(moment_ns: int) -> float:
    return (time.monotonic_ns() - moment_ns) / 1e9
