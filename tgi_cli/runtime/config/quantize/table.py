"""The one table of `tgi quantize`'s options: a flag, its form and its help for each field."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import get_args

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.quantize.options import (
    DEFAULT_DAMP,
    DEFAULT_GROUP_SIZE,
    DEFAULT_NUM_SAMPLES,
    DEFAULT_SEQUENCE_LENGTH,
    ONE_GROUP,
    CheckpointFormat,
    LogLevel,
    QuantizeBackend,
    QuantizeMethod,
    QuantizeOptions,
)
from tgi_cli.runtime.config.settings.setting import Setting

STORAGE = "How the weights are stored"
CALIBRATION = "What it is calibrated on"
RUN = "How it runs"
QUALITY = "What it must be worth"
OUTPUT = "What is shown"

_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
_REPOSITORY = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_LEVELS = get_args(LogLevel)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSetting(Setting):
    """A field of `QuantizeOptions`. A switch has a flag to turn it on and one to turn it off."""

    has_variable: bool = False
    off_flag: str | None = None  # None: with `--no-`

    @property
    def default(self) -> object:
        return _DEFAULTS[self.name]

    @property
    def switch_flags(self) -> str:
        """Both flags, as Typer takes them."""
        return f"{self.flag}/{self.off_flag or '--no-' + self.flag[2:]}"

    @property
    def default_text(self) -> str | None:
        """The default for people; a switch that is off by default has none to tell."""
        if self.is_switch and self.default_note is None:
            return "on" if self.default else None
        if self.default_note is not None or self.default is None:
            return self.default_note
        return str(self.default)


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(QuantizeOptions)}


def _group_size(value: str) -> int:
    if value == str(ONE_GROUP):
        return ONE_GROUP
    size = parsers.count(value)
    if size == 0:
        raise ValueError("0 is not a group size; -1 is one group for all")
    return size


def _positive(value: str) -> int:
    number = parsers.count(value)
    if number == 0:
        raise ValueError("0 is not above 0")
    return number


def _window(value: str) -> int:
    number = parsers.count(value)
    if number < 2:
        raise ValueError(f"{number} is too short: a window is a token and what follows it")
    return number


def _bits(value: str) -> int:
    number = parsers.count(value)
    if number not in (2, 3, 4, 8):
        raise ValueError(f"{number} is not one of 2, 3, 4, 8")
    return number


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"{parsers.shown(value)} is not cpu, cuda or cuda:N")
    return value


def _repository(value: str) -> str:
    if not _REPOSITORY.fullmatch(value):
        raise ValueError(f"{parsers.shown(value)} is not a repository, such as org/name")
    return value


def _level(value: str) -> str:
    return str(parsers.choice(*_LEVELS)(value.lower()))


def _choice(
    name: str, group: str, values: tuple[str, ...], help: str, note: str | None = None
) -> QuantizeSetting:
    return QuantizeSetting(
        name=name,
        group=group,
        help=help,
        parse=parsers.choice(*values),
        metavar="|".join(values),
        choices=values,
        default_note=note,
    )


def _number(
    name: str,
    group: str,
    help: str,
    parse: parsers.Parser,
    metavar: str = "N",
    note: str | None = None,
) -> QuantizeSetting:
    return QuantizeSetting(
        name=name, group=group, help=help, parse=parse, metavar=metavar, default_note=note
    )


def _text(
    name: str, group: str, help: str, metavar: str, note: str | None = None
) -> QuantizeSetting:
    return QuantizeSetting(name=name, group=group, help=help, metavar=metavar, default_note=note)


def _switch(
    name: str, group: str, help: str, off_flag: str | None = None, note: str | None = None
) -> QuantizeSetting:
    return QuantizeSetting(
        name=name,
        group=group,
        help=help,
        parse=parsers.switch,
        off_flag=off_flag,
        default_note=note,
    )


QUANTIZE_SETTINGS: tuple[QuantizeSetting, ...] = (
    _choice(
        "method",
        STORAGE,
        get_args(QuantizeMethod),
        "awq+gptq: AWQ's scales with GPTQ's rounding; int8: one scale an output; rtn: plain "
        "rounding.",
    ),
    _number("bits", STORAGE, "2, 3, 4 or 8 bits a weight.", _bits, note="4; 8 of int8"),
    _number(
        "group_size",
        STORAGE,
        "Weights of a row that share a scale; -1: all of them.",
        _group_size,
        note=f"{DEFAULT_GROUP_SIZE}; -1 of int8",
    ),
    _switch(
        "sym",
        STORAGE,
        "Whether zero is in the middle of each group's grid.",
        off_flag="--asym",
        note="symmetric; asymmetric of awq and awq+gptq",
    ),
    _switch(
        "desc_act",
        STORAGE,
        "Give each group inputs of similar weight (act-order): better, and slower to serve.",
    ),
    _number(
        "damp",
        STORAGE,
        "GPTQ's damping, of the mean of the Hessian's diagonal.",
        parsers.part,
        "SHARE",
        note=str(DEFAULT_DAMP),
    ),
    _choice(
        "format",
        STORAGE,
        get_args(CheckpointFormat),
        "Layout of the files: AutoGPTQ's, version 1, or AutoAWQ's GEMM.",
        note="awq for asymmetric 4 bits of awq, awq+gptq and rtn, else gptq",
    ),
    _choice(
        "backend",
        STORAGE,
        get_args(QuantizeBackend),
        "Who solves: this program, or a library that is installed beside it.",
    ),
    _number("num_shard", STORAGE, "Devices that the model will be served on.", _positive),
    _number(
        "shard_size",
        STORAGE,
        "Largest file of weights, such as 5GB.",
        parsers.num_bytes,
        "SIZE",
        "5GB",
    ),
    _text(
        "calibration",
        CALIBRATION,
        "A text file, or the name of a text that ships with the program.",
        "FILE|NAME",
        note="the text that ships",
    ),
    _number(
        "num_samples",
        CALIBRATION,
        "Windows of the calibration text.",
        _positive,
        note=str(DEFAULT_NUM_SAMPLES),
    ),
    _number(
        "sequence_length",
        CALIBRATION,
        "Tokens of a window, of the evaluation's windows too.",
        _window,
        note=str(DEFAULT_SEQUENCE_LENGTH),
    ),
    _number("seed", CALIBRATION, "Draws the windows.", parsers.count, note="0"),
    _text("revision", RUN, "Branch, tag or commit of a model on the hub.", "NAME", note="main"),
    QuantizeSetting(
        name="device", group=RUN, help="Where it is solved.", parse=_device, metavar="cpu|cuda[:N]"
    ),
    _number(
        "max_memory",
        RUN,
        "Most memory to use, such as 8GiB; refused if it can't do.",
        parsers.num_bytes,
        "SIZE",
        note="what is free",
    ),
    _switch("resume", RUN, "Go on with an interrupted run: the bytes are the same."),
    _switch("dry_run", RUN, "Only show the plan: layers, bytes, memory and time."),
    QuantizeSetting(
        name="push_to_hub",
        group=RUN,
        help="Upload the result to this repository, which is made private if it is new.",
        parse=_repository,
        metavar="ORG/NAME",
    ),
    _text("evaluate", QUALITY, "Only measure this model, with --against.", "MODEL"),
    _text("against", QUALITY, "The original that --evaluate is held against.", "BASE"),
    _switch("evaluation", QUALITY, "Measure the result on text that was held out."),
    _number("evaluation_samples", QUALITY, "Windows of the held-out text.", _positive),
    _number(
        "max_kl",
        QUALITY,
        "Refuse the result (exit code 3) above this mean KL divergence, in nats.",
        parsers.positive_number,
        "NATS",
    ),
    _number(
        "max_ppl_increase",
        QUALITY,
        "Refuse the result (exit code 3) above this growth of perplexity, such as 5%.",
        parsers.percentage,
        "SHARE",
    ),
    _switch("json_output", OUTPUT, "Progress and report as lines of JSON."),
    QuantizeSetting(
        name="log_level",
        group=OUTPUT,
        help="Above info no progress is shown.",
        parse=_level,
        metavar="|".join(_LEVELS),
        choices=_LEVELS,
    ),
    _switch(
        "trust_remote_code", OUTPUT, "Accepted for older scripts: no code of a model ever runs."
    ),
)
