"""THE table of options: flag, variables, form and help. Nothing else reads the environment.

The command line, docs/reference and the shell completions are made from it.
A value comes from the flag, else from `TGI_SOME_NAME`, else from `SOME_NAME`, else from
`ServeOptions`. An empty variable counts as unset. Spec: launcher-options.md section 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import msgspec

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.options import KvCacheDtype, Quantize, ServeOptions
from tgi_cli.runtime.config.parsers import Parser

MODEL = "Model"
LIMITS = "Limits per request"
BATCHING = "Batching"
DEVICES = "Devices"
OPERATION = "Network and operation"
ENVIRONMENT = "Environment only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One option: a field of `ServeOptions` and the ways to fill it."""

    name: str  # the field's
    group: str
    help: str
    parse: Parser = parsers.text
    metavar: str = "TEXT"
    choices: tuple[str, ...] = ()
    short_flag: str | None = None
    default_note: str | None = None  # what an unset option becomes, where it is not a constant
    fallback_variable: str | None = None  # another program's name, read last
    is_list: bool = False
    is_secret: bool = False

    @property
    def has_flag(self) -> bool:
        return self.group != ENVIRONMENT

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        return self.parse is parsers.switch

    @property
    def variable(self) -> str:
        return self.name.upper()

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables, the first that is set winning."""
        name = self.variable
        found = (name,) if name.startswith("TGI_") else (f"TGI_{name}", name)
        return (*found, self.fallback_variable) if self.fallback_variable else found

    @property
    def default(self) -> object:
        return _DEFAULTS[self.name]


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ServeOptions)}


def _choice(name: str, group: str, values: tuple[str, ...], help: str) -> Setting:
    return Setting(
        name=name,
        group=group,
        help=help,
        parse=parsers.choice(*values),
        metavar="|".join(values),
        choices=values,
    )


def _count(name: str, group: str, help: str, *, note: str | None = None) -> Setting:
    return Setting(
        name=name, group=group, help=help, parse=parsers.count, metavar="N", default_note=note
    )


def _switch(name: str, group: str, help: str) -> Setting:
    return Setting(name=name, group=group, help=help, parse=parsers.switch, metavar="true|false")


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="model_id",
        group=MODEL,
        help="Hub id, folder of safetensors, .gguf file, or demo: a small model to try.",
    ),
    Setting(name="revision", group=MODEL, help="Branch, tag or commit of the hub repository."),
    dataclasses.replace(
        _choice(
            "dtype",
            MODEL,
            ("float16", "bfloat16", "float32"),
            "Number format to which the weights are rounded.",
        ),
        default_note="the checkpoint's own",
    ),
    dataclasses.replace(
        _choice(
            "quantize",
            MODEL,
            get_args(Quantize),
            "gguf computes with a GGUF file's own Q4_0, Q4_1 and Q8_0; no other is served yet.",
        ),
        default_note="weights are rounded to dtype",
    ),
    dataclasses.replace(
        _choice(
            "kv_cache_dtype",
            MODEL,
            get_args(KvCacheDtype),
            "Number format of keys and values in the cache; fp8 isn't for CPUs.",
        ),
        default_note="dtype",
    ),
    Setting(
        name="tokenizer_config_path",
        group=MODEL,
        metavar="FILE",
        help="Use this file in place of the model's tokenizer_config.json.",
    ),
    Setting(
        name="huggingface_hub_cache",
        group=MODEL,
        metavar="FOLDER",
        help="Folder of the hub's cache.",
        default_note="the hub library's",
    ),
    _count(
        "max_concurrent_requests",
        LIMITS,
        "Requests in the server at once; one more is refused with status 429.",
    ),
    _count("max_best_of", LIMITS, "Highest best_of that a request may ask for."),
    _count("max_stop_sequences", LIMITS, "Most stop sequences in one request."),
    _count("max_top_n_tokens", LIMITS, "Highest top_n_tokens that a request may ask for."),
    _count(
        "max_input_tokens",
        LIMITS,
        "Longest prompt, in tokens.",
        note="max-total-tokens less 1",
    ),
    _count("max_input_length", LIMITS, "Deprecated name of --max-input-tokens."),
    _count(
        "max_total_tokens",
        LIMITS,
        "Longest prompt and output together, in tokens.",
        note="what the model was made for, if the KV cache holds it",
    ),
    _count("max_client_batch_size", LIMITS, "Most prompts in one call of /v1/completions."),
    _count("payload_limit", LIMITS, "Longest request body, in bytes."),
    _count(
        "max_batch_prefill_tokens",
        BATCHING,
        "Most tokens in one forward pass; longer prompts are computed in chunks.",
        note="4096, or the model's longest context if shorter",
    ),
    _count(
        "max_batch_total_tokens",
        BATCHING,
        "Most token slots in the KV cache.",
        note="what the free memory holds and the other limits can use",
    ),
    _count("max_batch_size", BATCHING, "Most sequences in one batch.", note="no limit of its own"),
    _count("validation_workers", BATCHING, "Threads that tokenize."),
    _choice("device", DEVICES, ("auto", "cpu", "cuda"), "Where the model is computed."),
    _switch("sharded", DEVICES, "Split the model over devices; this version can't."),
    _count(
        "num_shard", DEVICES, "Devices to split the model over; this version takes 1.", note="1"
    ),
    Setting(
        name="cpu_threads",
        group=DEVICES,
        parse=parsers.count,
        metavar="N",
        help="Threads that compute.",
        default_note="the cores that the process may use",
        fallback_variable="OMP_NUM_THREADS",
    ),
    _switch(
        "verify_determinism",
        DEVICES,
        "Compute requests alone, together and in chunks before the port opens; other bits end it.",
    ),
    _choice(
        "engine",
        DEVICES,
        ("native", "fake"),
        "fake answers at once with made-up tokens, to test clients without computing.",
    ),
    Setting(
        name="hostname",
        group=OPERATION,
        metavar="IP",
        help="Address to listen on. What isn't an IP address counts as 0.0.0.0.",
    ),
    Setting(
        name="port",
        group=OPERATION,
        short_flag="-p",
        parse=parsers.port,
        metavar="N",
        help="Port to listen on; 0 takes a free one.",
    ),
    Setting(
        name="api_key",
        group=OPERATION,
        help="Key that requests must bring as a bearer token.",
        is_secret=True,
    ),
    Setting(
        name="cors_allow_origin",
        group=OPERATION,
        parse=parsers.names,
        metavar="ORIGIN",
        help="Origin that browsers may call from; repeat it, or give the variable a comma list.",
        default_note="any",
        is_list=True,
    ),
    Setting(
        name="graceful_termination_timeout",
        group=OPERATION,
        short_flag="-g",
        parse=parsers.count,
        metavar="SECONDS",
        help="How long open requests may go on after SIGTERM.",
    ),
    _switch("json_output", OPERATION, "Write the log as JSON, one object per line."),
    _choice(
        "usage_stats",
        OPERATION,
        ("on", "off", "no-stack"),
        "Accepted for compatibility; nothing is ever sent, whatever the value.",
    ),
    Setting(
        name="log_level",
        group=ENVIRONMENT,
        parse=parsers.log_level,
        metavar="error|warn|info|debug",
        help="Least level of the server's own log lines.",
    ),
    _switch("log_colorize", ENVIRONMENT, "Colour the log on a terminal."),
    Setting(
        name="tgi_wiggle_room",
        group=ENVIRONMENT,
        parse=parsers.share,
        metavar="SHARE",
        help="Share of the free memory that the KV cache may take.",
    ),
)

HUB_VARIABLES: tuple[tuple[str, str], ...] = (
    ("HF_TOKEN", "Token for the hub; the hub's own login file is read when it is unset."),
    ("HF_HOME", "Root of the hub's cache."),
    ("HF_HUB_OFFLINE", "1: use the cache only, never the network."),
)
"""Read by the hub library, not by this table; named here so that the reference page has them."""


def merge(
    flags: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[ServeOptions, tuple[str, ...]]:
    """Join what the command line and the environment say; return the options and the warnings.

    `flags` holds parsed values by field, None where a flag was not given.

    Raises:
        ArgumentError: a variable whose value can't be read.
    """
    values: dict[str, object] = {}
    warnings: list[str] = []
    for setting in SETTINGS:
        flag = flags.get(setting.name)
        if flag is not None:
            values[setting.name] = flag
            continue
        value, warning = _from_environment(setting, environ)
        if value is not None:
            values[setting.name] = value
        if warning is not None:
            warnings.append(warning)
    return msgspec.convert(values, ServeOptions), tuple(warnings)


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> tuple[object, str | None]:
    found = [(name, environ[name]) for name in setting.variables if environ.get(name)]
    if not found:
        return None, None
    (used, value), *others = found
    warning = None
    for name, other in others:
        if other != value and name != setting.fallback_variable:
            warning = f"{used} and {name} differ; {used} is used"
    try:
        return setting.parse(value), warning
    except ValueError as exc:
        reason = f"{used} is not valid" if setting.is_secret else str(exc)
        raise ArgumentError(f"invalid value for `{used}`: {reason}") from exc
