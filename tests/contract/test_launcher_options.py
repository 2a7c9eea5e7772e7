"""A row for each option of spec/launcher-options.md sections 1, 2 and 5: names, default, values,
and what comes of it. What an option decides is in test_launcher_start.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from tests.architecture.imports import ROOT
from tgi_cli import runtime
from tgi_cli.app import app
from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.check_options import check_options, warnings_of
from tgi_cli.runtime.config.env import merge
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.settings import SETTINGS

Verdict = Literal["works", "refused", "told", "accepted"]


@dataclass(frozen=True)
class Option:
    """A row of sections 2 and 5: the names, the default, one value, and what comes of it."""

    name: str  # of the flag without hyphens in front, and of the variable in upper case
    default: object
    text: str  # a value as it is written
    value: object  # what it means
    bad: str | None  # a value that can't be read
    verdict: Verdict = "works"  # told: a warning that it changes nothing


FLAGS = [
    # 2.1 Model
    Option("model-id", "demo", "org/name", "org/name", None),
    Option("revision", None, "refs/pr/1", "refs/pr/1", None),
    Option("quantize", None, "gguf", "gguf", "int3"),
    Option("quantize", None, "awq", "awq", "AWQ "),
    Option("quantize", None, "compressed_tensors", "compressed-tensors", ""),
    Option("quantize", None, "eetq", "eetq", "eet"),
    Option("quantize", None, "exl2", "exl2", "exl3", "refused"),
    Option("quantize", None, "gptq", "gptq", "gptq2"),
    Option("quantize", None, "marlin", "marlin", "machete"),
    Option("quantize", None, "bitsandbytes", "bitsandbytes", "bnb"),
    Option("quantize", None, "bitsandbytes-nf4", "bitsandbytes-nf4", "nf4"),
    Option("quantize", None, "bitsandbytes_fp4", "bitsandbytes-fp4", "fp4"),
    Option("quantize", None, "fp8", "fp8", "fp-8"),
    Option("dtype", None, "bfloat16", "bfloat16", "int8"),
    Option("kv-cache-dtype", None, "float32", "float32", "fp8"),
    Option("kv-cache-dtype", None, "fp8_e4m3fn", "fp8_e4m3fn", "fp8_e4m3", "refused"),
    Option("kv-cache-dtype", None, "fp8-e5m2", "fp8_e5m2", "fp8e5m2", "refused"),
    Option("trust-remote-code", False, "true", True, "maybe", "told"),
    Option("speculate", None, "0", 0, "-1"),
    Option("speculate", None, "3", 3, "x", "refused"),
    Option("lora-adapters", (), "a,b=/x@main", ("a", "b=/x@main"), None, "refused"),
    Option("rope-scaling", None, "dynamic", "dynamic", "yarn"),
    Option("rope-factor", None, "2.5", 2.5, "0"),
    Option("tokenizer-config-path", None, "t.json", "t.json", None),
    Option("disable-grammar-support", False, "true", True, "2"),
    Option("enable-prefill-logprobs", False, "true", True, "2", "accepted"),
    Option("watermark-gamma", 0.5, "0.25", 0.25, "1"),
    Option("watermark-delta", 2.0, "-1.5", -1.5, "inf"),
    Option("huggingface-hub-cache", None, "/c", "/c", None),
    Option("weights-cache-override", None, "/w", "/w", None),
    Option("disable-custom-kernels", False, "true", True, "2"),
    Option("cuda-memory-fraction", 1.0, "0.9", 0.9, "1.01"),
    Option("cuda-graphs", None, "1,2,8", (1, 2, 8), "1,x", "told"),
    Option("cuda-graphs", None, "0", (), "zero"),
    # 2.2 Limits per request
    Option("max-concurrent-requests", 128, "7", 7, "-1"),
    Option("max-best-of", 2, "7", 7, "x"),
    Option("max-stop-sequences", 4, "7", 7, "x"),
    Option("max-top-n-tokens", 5, "7", 7, "x"),
    Option("max-input-tokens", None, "7", 7, "7.0"),
    Option("max-input-length", None, "7", 7, "7k"),
    Option("max-total-tokens", None, "7", 7, "0x7"),
    Option("max-client-batch-size", 4, "7", 7, "x"),
    Option("payload-limit", 2_000_000, "7", 7, "7MB"),
    Option("max-image-fetch-size", 1 << 30, "7", 7, "x", "told"),
    # 2.3 Batching
    Option("max-batch-prefill-tokens", None, "77", 77, "x"),
    Option("max-batch-total-tokens", None, "77", 77, "9" * 40),
    Option("waiting-served-ratio", 0.3, "1.2", 1.2, "nan", "told"),
    Option("max-waiting-tokens", 20, "7", 7, "x", "told"),
    Option("max-batch-size", None, "7", 7, "x"),
    Option("validation-workers", 2, "7", 7, "x"),
    # 2.4 Devices
    Option("sharded", None, "false", False, "perhaps"),
    Option("sharded", None, "true", True, "perhaps", "refused"),
    Option("num-shard", None, "1", 1, "x"),
    Option("num-shard", None, "2", 2, "x", "refused"),
    Option("shard-uds-path", None, "/tmp/x", "/tmp/x", None, "told"),
    Option("master-addr", None, "10.0.0.1", "10.0.0.1", None, "told"),
    Option("master-port", None, "29500", 29_500, "65536", "told"),
    # 2.5 Network and operation
    Option("hostname", "0.0.0.0", "::1", "::1", None),
    Option("port", 3000, "80", 80, "65536"),
    Option("prometheus-port", 9000, "9001", 9001, "x"),
    Option("cors-allow-origin", (), "https://a.example", ("https://a.example",), None),
    Option("api-key", None, "k", "k", None),
    Option("graceful-termination-timeout", 90, "7", 7, "7s"),
    Option("json-output", False, "true", True, "2"),
    Option("otlp-endpoint", None, "http://c:4317", "http://c:4317", None),
    Option("otlp-service-name", "text-generation-inference.router", "x", "x", None),
    Option("usage-stats", "on", "off", "off", "0", "accepted"),
    Option("usage-stats", "on", "no_stack", "no-stack", "none", "accepted"),
    Option("ngrok", False, "true", True, "2", "refused"),
    Option("ngrok-authtoken", None, "t", "t", None, "accepted"),
    Option("ngrok-edge", None, "e", "e", None, "accepted"),
    Option("master-shard-uds-path", None, "/tmp/x-0", "/tmp/x-0", None, "told"),
    Option("messages-api-enabled", False, "true", True, "2", "told"),
    Option("disable-usage-stats", False, "true", True, "2", "told"),
    Option("disable-crash-reports", False, "true", True, "2", "told"),
    # Ours
    Option("strict-lengths", False, "true", True, "2"),
    Option("device", "auto", "cpu", "cpu", "tpu"),
    Option("device", "auto", "cuda", "cuda", "tpu", "refused"),
    Option("attention", None, "paged", "paged", "xformers"),
    Option("attention", None, "triton", "triton", "flash", "told"),
    Option("attention", None, "flashinfer", "flashinfer", "flash", "told"),
    Option("attention", None, "flashdecoding", "flashdecoding", "flash", "told"),
    Option("attention", None, "flash_attn", "flash-attn", "flash", "told"),
    Option("attention", None, "flashdecoding_ipex", "flashdecoding-ipex", "flash", "told"),
    Option("cpu-threads", None, "7", 7, "x"),
    Option("verify-determinism", False, "true", True, "2"),
    Option("engine", "native", "fake", "fake", "real"),
    Option("api-key-file", None, "k.txt", "k.txt", None),
    Option("stall-timeout", 60, "7", 7, "7s"),
    Option("protect-chat-tokenize", False, "true", True, "2"),
    Option("openai-strict", False, "true", True, "2"),
    Option("log-level", "info", "debug", "debug", None),
]

VARIABLES = [  # 5: without a flag
    Option("hf-token", None, "hf_x", "hf_x", None),
    Option("prefix-caching", True, "0", False, "2"),
    Option("prefill-chunking", True, "0", False, "2"),
    Option("use-flash-attention", True, "false", False, "2", "told"),
    Option("log-format", "text", "json", "json", None),
    Option("log-format", "text", "pretty", "text", None),
    Option("log-colorize", True, "0", False, "2"),
    Option("tgi-wiggle-room", 0.9, "0.5", 0.5, "0"),
    Option("compute-type", None, "1-xeon", "1-xeon", None),
    Option("docker-label", None, "x", "x", None),
    Option("build-sha", None, "c0ffee", "c0ffee", None),
    Option("cuda-visible-devices", None, "", None, None),
    Option("nvidia-visible-devices", None, "void", "void", None),
    Option("ze-affinity-mask", None, "", None, None),
    Option("aip-http-port", None, "8080", 8080, "http"),
    Option("aip-predict-route", None, "/predict", "/predict", "predict"),
    Option("aip-health-route", None, "/alive", "/alive", "/a b"),
]

FLAG_ONLY = ("env",)


def field_of(option: Option) -> str:
    return option.name.replace("-", "_")


def named(rows: list[Option]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=lambda row: f"{row.name}={row.text}")


def test_the_tables_have_every_option() -> None:
    rows = {field_of(row) for row in FLAGS} | set(FLAG_ONLY)

    assert {setting.name for setting in SETTINGS if setting.has_flag} == rows
    assert {setting.name for setting in SETTINGS if not setting.has_flag} == {
        field_of(row) for row in VARIABLES
    }


def test_the_guide_names_what_changes_nothing() -> None:
    guide = (ROOT / "docs/guides/configuration.md").read_text()

    for setting in SETTINGS:
        if setting.no_effect:
            assert (setting.flag if setting.has_flag else setting.variable) in guide


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """Collect what `tgi serve` asks of the runtime, which then serves nothing."""
    seen: list[ServeOptions] = []

    def serve(options: ServeOptions, *_: Any) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(runtime, "serve", serve)
    for setting in SETTINGS:
        for name in setting.variables:
            monkeypatch.delenv(name, raising=False)
    return seen


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["serve", *args])


@named(FLAGS)
def test_a_flag_has_its_value(row: Option, asked: list[ServeOptions]) -> None:
    result = run(f"--{row.name}", row.text)

    assert result.exit_code == 0, result.output
    assert asked == [ServeOptions(**{field_of(row): row.value})]


@named([row for row in FLAGS if row.bad is not None])
def test_a_flag_that_cannot_be_read_ends_with_2(row: Option, asked: list[ServeOptions]) -> None:
    result = run(f"--{row.name}={row.bad}")

    assert result.exit_code == 2
    assert f"--{row.name}" in result.output
    assert asked == []


@named(FLAGS + VARIABLES)
def test_an_option_has_its_default(row: Option) -> None:
    assert getattr(ServeOptions(), field_of(row)) == row.default


@pytest.mark.parametrize("prefix", ["", "TGI_"])
@named(FLAGS + VARIABLES)
def test_a_variable_has_its_value(row: Option, prefix: str) -> None:
    name = field_of(row).upper()
    variable = name if name.startswith("TGI_") else prefix + name

    options, warnings = merge({}, {variable: row.text})

    assert getattr(options, field_of(row)) == row.value
    assert warnings == ()


@named([row for row in FLAGS + VARIABLES if row.bad])
def test_a_variable_that_cannot_be_read_is_named(row: Option) -> None:
    variable = field_of(row).upper()

    with pytest.raises(ArgumentError, match=f"^invalid value for `{variable}`: "):
        merge({}, {variable: str(row.bad)})


@named(FLAGS + VARIABLES)
def test_an_option_works_or_is_refused_by_name_or_told(row: Option) -> None:
    options = ServeOptions(**{field_of(row): row.value})
    name = "ngrok" if row.name == "ngrok" else f"`{field_of(row)}`"

    if row.verdict == "refused":
        with pytest.raises(ArgumentError, match=name.replace("`sharded`", "`sharded` is true")):
            check_options(options)
        return
    check_options(options)
    told = [text for text in warnings_of(options) if name in text]

    assert bool(told) == (row.verdict == "told")


# Section 1


@pytest.mark.parametrize(
    ("flags", "environ", "port", "warnings"),
    [
        ({"port": 1}, {"TGI_PORT": "2", "PORT": "3"}, 1, ()),
        ({}, {"TGI_PORT": "2", "PORT": "3"}, 2, ("TGI_PORT and PORT differ; TGI_PORT is used",)),
        ({}, {"TGI_PORT": "2", "PORT": "2"}, 2, ()),
        ({}, {"PORT": "3"}, 3, ()),
        ({}, {}, 3000, ()),
        ({}, {"TGI_PORT": "", "PORT": ""}, 3000, ()),
    ],
)
def test_a_flag_wins_over_the_prefixed_variable_over_the_plain_one(
    flags: dict[str, object], environ: dict[str, str], port: int, warnings: tuple[str, ...]
) -> None:
    options, told = merge(flags, environ)

    assert (options.port, told) == (port, warnings)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("-p", "81"), {"port": 81}),
        (("-g", "7"), {"graceful_termination_timeout": 7}),
        (("-e",), {"env": True}),
        (("--env",), {"env": True}),
        (("--json-output",), {"json_output": True}),
        (("--json-output=false",), {}),
        (("--sharded", "true"), {"sharded": True}),
        (("--sharded",), {"sharded": True}),
    ],
)
def test_short_flags_and_switches(
    args: tuple[str, ...], expected: dict[str, Any], asked: list[ServeOptions]
) -> None:
    run(*args)

    assert asked == [ServeOptions(**expected)]


def test_env_has_no_variable() -> None:
    assert merge({}, {"ENV": "true", "TGI_ENV": "true"})[0].env is False


@pytest.mark.parametrize(
    ("args", "exit_code", "text"),
    [
        (("--help",), 0, "Usage: "),
        (("-h",), 0, "Usage: "),
        (("--version",), 0, "tgi "),
        (("-V",), 0, "tgi "),
        (("--no-such-flag",), 2, "No such option: --no-such-flag"),
        (("--max-waiting-tokens",), 2, "requires an argument"),
    ],
)
def test_the_command_line_explains_itself(
    args: tuple[str, ...], exit_code: int, text: str, asked: list[ServeOptions]
) -> None:
    result = run(*args)

    assert result.exit_code == exit_code
    assert text in result.output
    assert asked == []
