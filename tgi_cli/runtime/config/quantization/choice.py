"""What `--quantize` means for a model: its checkpoint decides, the option may only agree.

A quantised checkpoint is served in its own format; a plain one is quantised while it is loaded,
by the methods that need no calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.facts import ModelFacts
from tgi_cli.runtime.config.options import Quantize, ServeOptions
from tgi_cli.runtime.config.quantization import OnLoad, Quantization
from tgi_cli.runtime.config.quantization.on_load import Method

BITSANDBYTES: tuple[Quantize, ...] = ("bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")
_CALIBRATED: tuple[Quantize, ...] = ("awq", "compressed-tensors", "gptq", "marlin")

ON_THE_FLY: Mapping[Quantize, Quantization] = {
    method: OnLoad(method=method) for method in get_args(Method)
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The format to serve, or None for plain weights; its name and the reason, if it has one."""

    quantization: Quantization | None
    keeps_grid: bool = field(default=False, kw_only=True)  # a GGUF file's types
    name: str | None = None
    reason: str = ""


def choose(options: ServeOptions, model: ModelFacts) -> Choice:
    """Decide by option and checkpoint.

    Raises:
        ArgumentError: they contradict each other, or the option needs another checkpoint.
    """
    asked, found = options.quantize, model.weights.quantization
    if model.weights.kind == "gguf":
        return _of_gguf(asked, model)
    if asked == "gguf":
        raise ArgumentError(
            f"`quantize` is gguf, but {model.model_id} isn't a GGUF file; leave --quantize out"
        )
    if found is not None:
        return _of_quantised(options, found, model)
    if asked is None:
        return Choice(None)
    if asked in _CALIBRATED:
        raise ArgumentError(
            f"`quantize` is {asked}, but the weights of {model.model_id} aren't quantised",
            hint="Quantise them first, with `tgi quantize`, or leave --quantize out.",
        )
    return Choice(ON_THE_FLY[asked], asked, "asked for; done while loading")


def _of_gguf(asked: Quantize | None, model: ModelFacts) -> Choice:
    if asked == "gguf":
        reason = "asked for; Q4_0, Q4_1 and Q8_0 stay as they are"
        return Choice(None, asked, reason, keeps_grid=True)
    if asked is not None:
        raise ArgumentError(
            f"`quantize` is {asked}, but {model.model_id} is a GGUF file, which has its own types",
            hint="Give --quantize gguf to compute with them, or leave it out.",
        )
    return Choice(None)


def _of_quantised(options: ServeOptions, found: Quantization, model: ModelFacts) -> Choice:
    asked, name = options.quantize, found.methods[0]
    if asked is not None and asked not in found.methods:
        raise ArgumentError(
            f"`quantize` is {asked}, but {model.model_id} is quantised with {name}",
            hint="Leave --quantize out: the checkpoint's own method is used.",
        )
    check_dtype(options, name)
    reason = "the checkpoint's own" if asked is None else "asked for"
    return Choice(found, name, f"{reason}; {found.note}" if found.note else reason)


def check_dtype(options: ServeOptions, method: str) -> None:
    """Raise `ArgumentError` if a type is asked for beside a method that decides it."""
    if options.dtype is not None and method not in ("gguf", *BITSANDBYTES):
        raise ArgumentError(
            "Only 1 can be set between `dtype` and `quantize`, as they both decide how goes the "
            "final model."
        )
