"""From what was asked of `tgi quantize` to what is done: contradictions are refused by name.

A pure function of the options; whether a model fits them is seen in `runtime/quantize/plan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.quantize.options import (
    DEFAULT_DAMP,
    DEFAULT_GROUP_SIZE,
    DEFAULT_NUM_SAMPLES,
    DEFAULT_SEQUENCE_LENGTH,
    DEFAULT_SHARD_SIZE,
    ONE_GROUP,
    CheckpointFormat,
    QuantizeBackend,
    QuantizeMethod,
    QuantizeOptions,
)

_ASYMMETRIC_BY_HABIT = ("awq", "awq+gptq")
_UNCALIBRATED = ("int8", "rtn")
_DAMPED = ("gptq", "awq+gptq")
_MEASURING_ONLY = frozenset(
    {
        "evaluate",
        "against",
        "revision",
        "sequence_length",
        "evaluation_samples",
        "max_kl",
        "max_ppl_increase",
        "json_output",
        "log_level",
        "trust_remote_code",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeRecipe:
    """What determines the bytes of the result, besides the model and the number of threads."""

    method: QuantizeMethod
    backend: QuantizeBackend
    format: CheckpointFormat
    bits: int
    group_size: int  # inputs; -1: all of a row
    symmetric: bool
    desc_act: bool
    damp: float | None  # of the mean of the Hessian's diagonal; None: the method has none
    calibration: str | None  # file or name; None: the text that ships, or none is used
    num_samples: int  # windows; 0: the method isn't calibrated
    sequence_length: int  # tokens
    seed: int
    device: str
    shard_size: int  # bytes

    @property
    def is_calibrated(self) -> bool:
        return self.num_samples > 0


def decide(options: QuantizeOptions) -> QuantizeRecipe:
    """Return what is done.

    Raises:
        ArgumentError: options that contradict each other; the message names them.
    """
    _check_job(options)
    _check_calibration(options)
    method, backend = options.method, options.backend
    bits = options.bits or (8 if method == "int8" else 4)
    symmetric = _symmetric(options)
    if method == "int8":
        _check_int8(options, bits)
    if options.desc_act and method not in _DAMPED:
        raise ArgumentError(f"--desc-act is GPTQ's: --method {method} has no order of inputs.")
    if options.damp is not None and method not in _DAMPED:
        raise ArgumentError(f"--damp is GPTQ's: --method {method} inverts nothing.")
    group_size = options.group_size
    if group_size is None:
        group_size = ONE_GROUP if method == "int8" else DEFAULT_GROUP_SIZE
    _check_backend(options)
    is_calibrated = method not in _UNCALIBRATED
    return QuantizeRecipe(
        method=method,
        backend=backend,
        format=_format(options, bits, symmetric),
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        desc_act=options.desc_act,
        damp=(options.damp or DEFAULT_DAMP) if method in _DAMPED else None,
        calibration=options.calibration,
        num_samples=(options.num_samples or DEFAULT_NUM_SAMPLES) if is_calibrated else 0,
        sequence_length=options.sequence_length or DEFAULT_SEQUENCE_LENGTH,
        seed=options.seed or 0,
        device=options.device,
        shard_size=options.shard_size,
    )


def read_options(flags: Mapping[str, object]) -> QuantizeOptions:
    """Return the options of a call; `flags` holds parsed values, None where none was given.

    Raises:
        ArgumentError: an option that measuring alone, or not measuring, has no use for.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    options = msgspec.convert(given, QuantizeOptions, strict=True)
    if options.evaluate is not None:
        _check_measuring(options, frozenset(given))
    elif not options.evaluation and "evaluation_samples" in given:
        raise ArgumentError("--evaluation-samples: --no-evaluation measures on nothing.")
    return options


def _check_measuring(options: QuantizeOptions, given: frozenset[str]) -> None:
    if options.against is None:
        raise ArgumentError("--evaluate needs --against: the original to hold the model against.")
    for name in sorted(given - _MEASURING_ONLY):
        flag = name if name in ("model", "output") else f"--{name.replace('_', '-')}"
        raise ArgumentError(f"--evaluate only measures: {flag} doesn't go with it.")


def _check_job(options: QuantizeOptions) -> None:
    if options.against is not None:
        raise ArgumentError("--against goes with --evaluate.")
    if options.model is None or options.output is None:
        raise ArgumentError(
            "Give the model and the folder to write: tgi quantize MODEL OUTPUT.",
            hint="To measure a quantised model: tgi quantize --evaluate MODEL --against BASE.",
        )
    if not options.evaluation:
        for name, bound in (
            ("--max-kl", options.max_kl),
            ("--max-ppl-increase", options.max_ppl_increase),
        ):
            if bound is not None:
                raise ArgumentError(f"{name} is a bound on what --no-evaluation leaves unmeasured.")


def _check_calibration(options: QuantizeOptions) -> None:
    if options.method not in _UNCALIBRATED:
        return
    for name, value in (
        ("--calibration", options.calibration),
        ("--num-samples", options.num_samples),
        ("--seed", options.seed),
    ):
        if value is not None:
            raise ArgumentError(f"{name}: --method {options.method} isn't calibrated on anything.")


def _symmetric(options: QuantizeOptions) -> bool:
    if options.sym is not None:
        return options.sym
    if options.format == "awq" and options.method != "int8":
        return False
    return options.method not in _ASYMMETRIC_BY_HABIT


def _check_int8(options: QuantizeOptions, bits: int) -> None:
    if bits != 8:
        raise ArgumentError(f"--bits {bits}: --method int8 has 8.")
    if options.sym is False:
        raise ArgumentError("--asym: --method int8 is symmetric.")
    if options.group_size not in (None, ONE_GROUP):
        raise ArgumentError(
            f"--group-size {options.group_size}: --method int8 has one scale an output.",
            hint="Use --method rtn --bits 8 for groups.",
        )


def _format(options: QuantizeOptions, bits: int, symmetric: bool) -> CheckpointFormat:
    asked = options.format if options.backend == "own" else _written_by_library(options)
    if asked == "gptq":
        return "gptq"
    if asked == "awq":
        if bits != 4:
            raise ArgumentError(f"--bits {bits}: --format awq holds 4 bits.")
        if options.desc_act:
            raise ArgumentError("--desc-act: --format awq has no order of inputs.")
        return "awq"
    is_awq = bits == 4 and not symmetric and not options.desc_act and options.method != "gptq"
    return "awq" if is_awq else "gptq"


_LIBRARY_METHODS: dict[QuantizeBackend, tuple[QuantizeMethod, ...]] = {
    "gptqmodel": ("gptq", "awq"),
    "autoawq": ("awq",),
    "autogptq": ("gptq",),
}


def _check_backend(options: QuantizeOptions) -> None:
    methods = _LIBRARY_METHODS.get(options.backend)
    if methods is None:
        return
    if options.method not in methods:
        raise ArgumentError(
            f"--backend {options.backend} does --method {' and '.join(methods)}, "
            f"not {options.method}."
        )
    if options.resume:
        raise ArgumentError(f"--resume: --backend {options.backend} can't go on with a run.")
    if options.shard_size != DEFAULT_SHARD_SIZE:
        raise ArgumentError(f"--shard-size: --backend {options.backend} cuts files as it likes.")
    wanted = _written_by_library(options)
    if options.format not in (None, wanted):
        raise ArgumentError(
            f"--format {options.format}: --backend {options.backend} writes {wanted} "
            f"for --method {options.method}."
        )


def _written_by_library(options: QuantizeOptions) -> CheckpointFormat:
    return "awq" if options.method == "awq" else "gptq"
