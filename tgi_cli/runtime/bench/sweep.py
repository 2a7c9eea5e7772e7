"""Find the highest throughput, then how latency grows towards it: one stage after the other.

First closed loops of 1, 2, 4, … users until more of them bring no more tokens, and one between the
last two. Then open loops at shares of the rate that was reached. With limits (`--slo`), three more
rates between the best that keeps them and the least that doesn't. Spec: bench.md section 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from tgi_cli.runtime.bench.result import Stage
from tgi_cli.runtime.bench.stage_values import error_rate
from tgi_cli.runtime.bench.statistics import real

SHARES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)  # of the saturated rate
MIN_GAIN = 0.05  # in tokens per second, for twice the users
MAX_ERROR_RATE = 0.01
NUM_BISECTIONS = 3
MAX_USERS = 1 << 14
_KNEE = 0.95  # of the highest throughput
_Z95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What a stage of the sweep has shown."""

    is_closed_loop: bool
    value: float  # users, or requests per second
    out_tok_s: float
    out_tok_s_ci95: tuple[float, float] | None  # None: too little to say
    req_s: float
    error_rate: float
    is_stable: bool = True  # of an open loop
    is_valid: bool = True  # False: the client was the limit
    meets_slo: bool | None = None  # None: no limits


@dataclass(frozen=True, slots=True)
class NextStage:
    """The stage to run: a closed loop of `value` users, or an open one of `value` requests/s."""

    is_closed_loop: bool
    value: float


@dataclass(frozen=True, slots=True)
class Found:
    """The sweep is over. Rates in requests per second; None: not found."""

    sat_req_s: float | None
    slo_req_s: float | None
    knee: float | None  # users from which on more bring little
    is_client_limited: bool = False  # exit code 5


def rung_of(stage: Stage, step: NextStage, *, meets_slo: bool | None) -> Rung:
    """Return what a stage that `step` asked for has shown."""
    rates = stage.throughput.all
    low, high = (real(bound) for bound in rates.ci95.get("out_tok_s", (None, None)))
    return Rung(
        is_closed_loop=step.is_closed_loop,
        value=step.value,
        out_tok_s=real(rates.out_tok_s) or 0.0,
        out_tok_s_ci95=None if low is None or high is None else (low, high),
        req_s=real(rates.req_s) or 0.0,
        error_rate=error_rate(stage) or 0.0,
        is_stable=stage.is_stable is not False,
        is_valid=stage.verdict != "invalid",
        meets_slo=meets_slo,
    )


def next_step(rungs: list[Rung], *, has_slo: bool) -> NextStage | Found:
    """Return what to do after `rungs`, which are in the order in which they were run."""
    if any(not rung.is_valid for rung in rungs):
        return _found(rungs, has_slo=has_slo, is_client_limited=True)
    closed = [rung for rung in rungs if rung.is_closed_loop]
    users = _next_users(closed)
    if users is not None:
        return NextStage(True, float(users))
    saturated = saturated_rate(closed)
    if saturated is None:
        return _found(rungs, has_slo=has_slo)
    rate = _next_rate([rung for rung in rungs if not rung.is_closed_loop], saturated, has_slo)
    return _found(rungs, has_slo=has_slo) if rate is None else NextStage(False, rate)


def gain_interval(before: Rung, after: Rung) -> tuple[float, float] | None:
    """Return the 95 % interval of the gain in output tokens per second, as a share of `before`."""
    if before.out_tok_s_ci95 is None or after.out_tok_s_ci95 is None or before.out_tok_s <= 0:
        return None
    ratio = after.out_tok_s / before.out_tok_s
    spread = ratio * math.hypot(_relative_error(before), _relative_error(after))
    return ratio - 1 - _Z95 * spread, ratio - 1 + _Z95 * spread


def saturated_rate(closed: list[Rung]) -> float | None:
    """Return the highest rate of the closed loops that had few errors; None: none had."""
    return max((rung.req_s for rung in closed if _is_clean(rung) and rung.req_s > 0), default=None)


def _relative_error(rung: Rung) -> float:
    assert rung.out_tok_s_ci95 is not None
    low, high = rung.out_tok_s_ci95
    return (high - low) / 2 / _Z95 / rung.out_tok_s if rung.out_tok_s > 0 else math.inf


def _is_clean(rung: Rung) -> bool:
    return rung.error_rate <= MAX_ERROR_RATE


def _next_users(closed: list[Rung]) -> int | None:
    """Return the users of the next closed loop; None once they have shown what they can."""
    if not closed:
        return 1
    ladder = [rung for number, rung in enumerate(closed) if rung.value == 1 << number]
    if len(ladder) < len(closed):  # the rung in the middle has been run
        return None
    last = ladder[-1]
    if not _has_ended(ladder):
        return int(last.value) * 2
    if len(ladder) < 2:
        return None
    middle = round(math.sqrt(ladder[-2].value * last.value))
    return middle if ladder[-2].value < middle < last.value else None


def _has_ended(ladder: list[Rung]) -> bool:
    last = ladder[-1]
    if not _is_clean(last) or last.value * 2 > MAX_USERS:
        return True
    if len(ladder) < 2:
        return False
    interval = gain_interval(ladder[-2], last)
    if interval is not None and interval[1] < MIN_GAIN:
        return True
    # Stages too short to be sure of anything would double the users for ever.
    gains = [
        after.out_tok_s / max(before.out_tok_s, 1e-9) - 1 for before, after in pairwise(ladder)
    ]
    return len(gains) >= 2 and max(gains[-2:]) < MIN_GAIN


def _next_rate(opened: list[Rung], saturated: float, has_slo: bool) -> float | None:
    """Return the rate of the next open loop, None once there are enough."""
    steps = opened[: len(SHARES)]
    if len(opened) < len(SHARES) and all(rung.is_stable for rung in opened):
        return SHARES[len(opened)] * saturated
    if not has_slo:
        return None
    num_steps = next((n for n, rung in enumerate(steps, 1) if not rung.is_stable), len(steps))
    if len(opened) - num_steps >= NUM_BISECTIONS:
        return None
    kept = [rung.value for rung in opened if _keeps(rung)]
    low = max(kept, default=0.0)
    high = min(
        (rung.value for rung in opened if not _keeps(rung) and rung.value > low), default=None
    )
    return None if high is None else (low + high) / 2


def _keeps(rung: Rung) -> bool:
    return rung.is_stable and rung.meets_slo is True


def _found(rungs: list[Rung], *, has_slo: bool, is_client_limited: bool = False) -> Found:
    closed = [rung for rung in rungs if rung.is_closed_loop and rung.is_valid]
    clean = [rung for rung in closed if _is_clean(rung)]
    best = max((rung.out_tok_s for rung in clean), default=0.0)
    knee = min((rung.value for rung in clean if rung.out_tok_s >= _KNEE * best), default=None)
    kept = [
        rung.value for rung in rungs if not rung.is_closed_loop and rung.is_valid and _keeps(rung)
    ]
    return Found(
        sat_req_s=saturated_rate(closed),
        slo_req_s=max(kept, default=None) if has_slo else None,
        knee=knee if best > 0 else None,
        is_client_limited=is_client_limited,
    )
