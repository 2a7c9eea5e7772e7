"""The levels of a probe, and waiting for one to hold.

live: `/health/live`; ready: `/health/ready`; of a server that has neither, TGI's `/health`. deep: a
streamed greedy request of one token (`generation.py`). Overload is never sickness: a deep probe
that meets a full queue reports `busy` and holds if the server is live.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from tgi_cli.runtime.config.probe import ProbeOptions
from tgi_cli.runtime.health.wire import DeadlinePassed, Reply, WireError, get

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0

FULL_CODES = {
    "ok": 0,
    "busy": 0,
    "unhealthy": 1,
    "unreachable": 3,
    "timeout": 4,
    "loading": 5,
    "draining": 5,
    "stalled": 6,
    "unauthorized": 7,
    "wrong_model": 8,
    "dead": 1,
    "slow": 1,
}
_FINAL = frozenset({"dead", "unauthorized"})  # waiting longer won't mend these
_STATES = frozenset({"loading", "draining", "stalled", "dead"})  # that the server says of itself


class Outcome(NamedTuple):
    status: str  # a key of FULL_CODES
    message: str  # one line for a person
    facts: dict[str, Any]  # what the server said of itself, and `ttft_s`

    @property
    def is_well(self) -> bool:
        return FULL_CODES[self.status] == 0


def exit_code(outcome: Outcome, options: ProbeOptions) -> int:
    """Return 0 or 1; with `--codes full`, what kind of failure it is."""
    code = FULL_CODES[outcome.status]
    return code if options.codes == "full" else min(code, 1)


def probe(options: ProbeOptions) -> Outcome:
    """Return how the server is, after waiting for it to be well if that was asked for."""
    start_s = time.monotonic()
    pause_s = _FIRST_PAUSE_S
    while True:
        outcome = try_once(options)
        waited_s = time.monotonic() - start_s
        if outcome.is_well or outcome.status in _FINAL or options.wait_s is None:
            return outcome
        if options.pid is not None and not _is_running(options.pid):
            return Outcome("dead", f"process {options.pid} is gone", outcome.facts)
        if waited_s + pause_s > options.wait_s:
            return outcome
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but there
    return True


def try_once(options: ProbeOptions) -> Outcome:
    """Ask once, within the time limit."""
    deadline_s = time.monotonic() + options.timeout_s
    try:
        outcome = _ask(options, deadline_s)
        if outcome.is_well and options.model is not None:
            outcome = _check_model(outcome, options, deadline_s)
        return outcome
    except DeadlinePassed as exc:
        return Outcome("timeout", f"{exc} ({options.timeout_s:g} s)", {})
    except WireError as exc:
        return Outcome("unreachable", str(exc), {})


def _ask(options: ProbeOptions, deadline_s: float) -> Outcome:
    if options.level != "deep":
        return _ask_state(options, options.level, deadline_s)
    from tgi_cli.runtime.health.generation import generate_one_token

    result = generate_one_token(options.target, options.api_key, deadline_s)
    facts = {"ttft_s": result.ttft_s}
    if result.status == "busy":
        live = _ask_state(options, "live", deadline_s)
        return Outcome("busy", result.message, live.facts) if live.is_well else live
    if result.status == "ok" and result.ttft_s is not None:
        shown = f"first token after {result.ttft_s:.3f} s"
        if options.max_ttft_s is not None and result.ttft_s > options.max_ttft_s:
            return Outcome("slow", f"{shown}, limit {options.max_ttft_s:g} s", facts)
        return Outcome("ok", shown, facts)
    return Outcome(result.status, result.message, facts)


def _ask_state(options: ProbeOptions, level: str, deadline_s: float) -> Outcome:
    reply = get(options.target, f"/health/{level}", deadline_s)
    if reply.status in (404, 405):  # TGI itself, or an older server
        reply = get(options.target, "/health", deadline_s)
    facts = reply.json()
    facts = facts if isinstance(facts, dict) else {}
    said = str(facts.get("status", ""))
    if reply.status == 200:
        return Outcome("ok", said or "answers", facts)
    if reply.status in (401, 403):
        return Outcome("unauthorized", f"status {reply.status}", facts)
    status = said if said in _STATES else "unhealthy"
    return Outcome(status, said or f"status {reply.status}", facts)


def _check_model(outcome: Outcome, options: ProbeOptions, deadline_s: float) -> Outcome:
    served = outcome.facts.get("model")
    names = [served] if isinstance(served, str) else _served_models(options, deadline_s)
    if options.model in names:
        return outcome
    shown = ", ".join(names) or "no model that it names"
    return Outcome("wrong_model", f"it serves {shown}, not {options.model}", outcome.facts)


def _served_models(options: ProbeOptions, deadline_s: float) -> list[str]:
    info = get(options.target, "/info", deadline_s).json()
    if isinstance(info, dict) and isinstance(info.get("model_id"), str):
        return [info["model_id"]]
    return _listed_models(get(options.target, "/v1/models", deadline_s))


def _listed_models(reply: Reply) -> list[str]:
    listed = reply.json()
    models = listed.get("data") if isinstance(listed, dict) else None
    entries = models if isinstance(models, list) else []
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]
