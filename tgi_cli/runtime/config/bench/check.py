"""Refuse options of `tgi bench` that don't go together, by name: none is passed over in silence."""

from __future__ import annotations

from collections.abc import Set

from tgi_cli.errors import UsageError
from tgi_cli.runtime.config.bench.options import DEFAULT_INPUT_TOKENS, BenchOptions

LOADS = ("concurrency", "rate", "ramp", "burst", "offline", "sweep", "trace", "conversations")
_SOURCES = ("dataset", "text", "trace", "conversations")


def check_options(options: BenchOptions, given: Set[str]) -> None:
    """Raise `UsageError` for the first contradiction; `given` names what was asked for."""
    _check_load(options)
    _check_details(options, given)
    _check_inputs(options, given)
    _check_output(options, given)


def loads_of(options: BenchOptions) -> list[str]:
    """Return the load flags that were given."""
    return [name for name in LOADS if getattr(options, name)]


def is_closed_loop(options: BenchOptions) -> bool:
    """Whether users send again after their answers; a sweep begins so and isn't one."""
    if options.ramp:
        return options.ramp_kind == "concurrency"
    if options.conversations:
        return not options.rate
    return loads_of(options) in ([], ["concurrency"], ["burst"])


def _check_load(options: BenchOptions) -> None:
    loads = loads_of(options)
    if options.conversations and len(loads) == 2 and (options.concurrency or options.rate):
        return  # what the conversations are started by
    if len(loads) > 1:
        raise UsageError(
            f"{' and '.join(map(_flag, loads))} are given; a run has one load.",
            hint="A comma list makes one stage per value: --rate 2,4.",
        )


def _check_details(options: BenchOptions, given: Set[str]) -> None:
    is_closed = is_closed_loop(options)
    has_gaps = bool(options.rate) or (bool(options.ramp) and not is_closed)
    _needs(given, "arrival", has_gaps, "--rate, or --ramp of rates")
    _needs(given, "burstiness", options.arrival == "gamma", "--arrival gamma")
    _needs(given, "ramp_kind", bool(options.ramp), "--ramp")
    _needs(given, "trace_speed", options.trace is not None, "--trace")
    _needs(given, "replay_answers", options.conversations is not None, "--conversations")
    has_users = is_closed and not options.burst
    _needs(given, "think_time", has_users or options.conversations is not None, "a closed loop")
    _needs(given, "stagger", has_users, "a closed loop")
    _needs(given, "max_concurrency", not is_closed, "an open loop")
    _needs(given, "ci_metric", options.until_ci is not None, "--until-ci")
    has_end = bool(options.burst or options.offline or options.trace)
    goes_on = not (has_end and options.tail_load)
    _needs(
        given, "tail_load", goes_on, "a load without an end: --burst, --offline, --trace have one"
    )
    if options.ramp and "duration" in given:
        raise UsageError("--duration is given, but --ramp says how long it takes.")
    if options.ramp and options.ramp_kind == "concurrency":
        for ramp in options.ramp:
            if not ramp.start.is_integer() or not ramp.stop.is_integer():
                raise UsageError(f"--ramp {ramp}: users are whole numbers.")


def _check_inputs(options: BenchOptions, given: Set[str]) -> None:
    sources = [name for name in _SOURCES if getattr(options, name)]
    if len(sources) > 1:
        raise UsageError(f"{' and '.join(map(_flag, sources))} are given; inputs have one source.")
    has_lengths = not sources or sources == ["text"]
    _needs(given, "input_tokens", has_lengths, "made inputs: a file brings its own")
    _needs(given, "output_tokens", options.trace is None, "made inputs: a trace brings its own")
    takes_prefix = options.trace is None and options.conversations is None
    _needs(given, "shared_prefix", takes_prefix, "inputs that aren't whole already")
    if options.prefix_cache == "prime" and options.shared_prefix is None:
        raise UsageError("--prefix-cache prime needs --shared-prefix.")
    lengths = options.input_tokens or DEFAULT_INPUT_TOKENS
    prefix = options.shared_prefix
    is_fixed = has_lengths and lengths.kind == "fixed"
    if prefix is not None and is_fixed and prefix.num_tokens >= lengths.value:
        raise UsageError(
            f"--shared-prefix: {prefix.num_tokens} tokens leave nothing of {lengths.value}.",
            hint="--input-tokens counts the prefix too.",
        )
    if options.send_token_ids and options.protocol in ("tgi", "chat"):
        raise UsageError(f"--send-token-ids: {options.protocol} has no input as token ids.")
    if options.send_token_ids and options.conversations:
        raise UsageError("--send-token-ids: a conversation is sent as text.")


def _check_output(options: BenchOptions, given: Set[str]) -> None:
    _needs(given, "out", options.save, "results that are saved; --no-save is given")
    _needs(given, "save_text", options.save, "results that are saved; --no-save is given")
    _needs(given, "strict", bool(options.slo), "--slo")
    if options.quiet and options.progress == "json":
        raise UsageError("--quiet and --progress json are given.")
    if options.insecure and options.cacert is not None:
        raise UsageError("--insecure and --cacert are given.")


def _needs(given: Set[str], name: str, is_met: bool, what: str) -> None:
    if name in given and not is_met:
        raise UsageError(f"{_flag(name)} needs {what}.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
