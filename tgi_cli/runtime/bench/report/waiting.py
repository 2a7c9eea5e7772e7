"""How long requests waited without being worked on: in this client, and in the server.

A server's queue is told by the server, or it is unknown. An estimate of it is only ever shown, as
one, and stored nowhere: how much later the first tokens came than they did for a single user.
Spec: bench.md section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tgi_cli.runtime.bench.report import words
from tgi_cli.runtime.bench.result import Number, Stage
from tgi_cli.runtime.bench.statistics import real


def waiting(stage: Stage, stages: Sequence[Stage]) -> str:
    """Return a line about a stage; `stages` are all of its run."""
    client, queued = stage.generator, stage.latency.server_queue
    parts = [
        f"{name} p99 {words.milliseconds(summary.p99)} ms"
        for name, summary in (("client_queue", client.client_queue), ("connect", client.connect))
    ]
    if queued is None:
        parts.append(f"server_queue {_estimate(stage, stages)}")
    elif queued.p50 is None:
        parts.append(f"server_queue mean {words.milliseconds(queued.mean)} ms")
    else:
        parts.append(f"server_queue {_percentiles(queued.p50, queued.p99)}")
    return ", ".join(parts)


def server_queue_estimate(
    stage: Stage, stages: Sequence[Stage]
) -> tuple[float | None, float | None]:
    """Return the p50 and p99 of TTFT beyond a single user's median, in seconds.

    None: there was no stage with a single user, or no answers in one of the two.
    """
    alone = _single_user(stage, stages)
    if alone is None or alone is stage or stage.load.kind == "offline":
        return None, None
    usual = _ttft(alone, "p50")
    if usual is None:
        return None, None
    late = (_ttft(stage, name) for name in ("p50", "p99"))
    p50, p99 = (None if each is None else max(each - usual, 0.0) for each in late)
    return p50, p99


def _single_user(stage: Stage, stages: Sequence[Stage]) -> Stage | None:
    """Return the stage with one user: that of the same repeat, else the first."""
    single = [one for one in stages if one.load.kind == "concurrency" and one.load.value == 1]
    return min(single, key=lambda one: one.repeat != stage.repeat, default=None)


def _ttft(stage: Stage, name: str) -> float | None:
    service = stage.latency.ttft.service
    value = None if service is None else real(getattr(service, name))
    return value if value is not None and math.isfinite(value) else None


def _estimate(stage: Stage, stages: Sequence[Stage]) -> str:
    p50, p99 = server_queue_estimate(stage, stages)
    if p50 is None:
        return f"{words.NOTHING} (the server doesn't tell)"
    return f"{_percentiles(p50, p99)} (an estimate: ttft_service less its median at concurrency=1)"


def _percentiles(p50: Number, p99: Number) -> str:
    return f"p50 {words.milliseconds(p50)} ms, p99 {words.milliseconds(p99)} ms"
