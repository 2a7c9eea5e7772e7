"""TGI's three programs as names of ours."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.architecture.imports import ROOT
from tgi_cli import app as programs
from tgi_cli import runtime
from tgi_cli.commands._old_names import router_arguments, server_arguments
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.quantize import QuantizeOptions
from tgi_cli.runtime.config.resolved import LogConfig
from tgi_cli.runtime.config.settings import SETTINGS


def run(
    program: str, args: list[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[object, list[ServeOptions]]:
    """Return the exit code, and what was asked of the runtime, which serves nothing."""
    asked: list[ServeOptions] = []

    def serve(options: ServeOptions, *_: Any) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr(runtime, "serve", serve)
    monkeypatch.setattr("sys.argv", [f"text-generation-{program}", *args])
    for setting in SETTINGS:
        for name in setting.variables:
            monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        getattr(programs, program)()
    return ended.value.code, asked


@pytest.mark.parametrize(
    ("program", "args", "expected"),
    [
        ("launcher", ["--model-id", "x", "-p", "80"], ServeOptions(model_id="x", port=80)),
        (
            "router",
            ["--tokenizer-name", "x", "--master-shard-uds-path", "/tmp/s-0", "--port=80"],
            ServeOptions(
                model_id="x", master_shard_uds_path="/tmp/s-0", port=80, waiting_served_ratio=1.2
            ),
        ),
        (
            "router",
            ["--tokenizer-name=x", "--waiting-served-ratio", "0.7"],
            ServeOptions(model_id="x", waiting_served_ratio=0.7),
        ),
        (
            "server",
            ["serve", "x", "--no-sharded", "--uds-path", "/tmp/s", "--logger-level", "DEBUG"],
            ServeOptions(model_id="x", sharded=False, shard_uds_path="/tmp/s", log_level="debug"),
        ),
        (
            "server",
            ["serve", "x", "--json-output", "--no-trust-remote-code", "--speculate=0"],
            ServeOptions(model_id="x", json_output=True, speculate=0),
        ),
    ],
)
def test_the_old_programs_serve(
    program: str, args: list[str], expected: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(program, args, monkeypatch) == (0, [expected])


@pytest.mark.parametrize("program", ["launcher", "router"])
@pytest.mark.parametrize(("flag", "text"), [("-V", "tgi "), ("--help", "Usage: text-generation-")])
def test_the_old_programs_explain_themselves(
    program: str,
    flag: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exit_code, asked = run(program, [flag], monkeypatch)

    assert (exit_code, asked) == (0, [])
    assert capsys.readouterr().out.startswith(text)


@pytest.mark.parametrize(
    ("args", "expected", "log"),
    [
        (["x"], DownloadOptions(model_id="x"), LogConfig()),
        (
            ["x", "--revision", "v1", "--extension", ".safetensors", "--auto-convert"],
            DownloadOptions(model_id="x", revision="v1"),
            LogConfig(),
        ),
        (
            ["x", "--extension=.bin", "--trust-remote-code", "--logger-level", "DEBUG"],
            DownloadOptions(
                model_id="x", extension=".bin", convert="never", trust_remote_code=True
            ),
            LogConfig(level="DEBUG"),
        ),
        (
            ["--no-auto-convert", "--merge-lora", "--json-output", "x"],
            DownloadOptions(model_id="x", convert="never", merge_lora=True),
            LogConfig(json=True),
        ),
        (
            ["x", "--no-merge-lora", "--no-json-output", "--no-trust-remote-code"],
            DownloadOptions(model_id="x"),
            LogConfig(),
        ),
    ],
)
def test_download_weights_is_tgi_download(
    args: list[str],
    expected: DownloadOptions,
    log: LogConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def download(options: DownloadOptions, log: LogConfig, screen: object) -> int:
        asked.extend((options, log))
        return 0

    monkeypatch.setattr(runtime, "download", download)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    exit_code, served = run("server", ["download-weights", *args], monkeypatch)

    assert (exit_code, served, asked) == (0, [], [expected, log])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {"damp": 0.01}),
        (
            ["--percdamp", "0.1", "--act-order", "--groupsize=64", "--revision", "r"],
            {"damp": 0.1, "desc_act": True, "group_size": 64, "revision": "r"},
        ),
        (
            ["--upload-to-model-id", "org/x", "--no-trust-remote-code", "--logger-level", "INFO"],
            {"damp": 0.01, "push_to_hub": "org/x"},
        ),
    ],
)
def test_the_old_server_quantises_as_it_did(
    args: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[QuantizeOptions] = []

    def quantize(options: QuantizeOptions, _: Any) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr(runtime, "quantize_model", quantize)
    exit_code, _ = run("server", ["quantize", "m", "o", *args], monkeypatch)

    assert exit_code == 0
    assert asked == [
        QuantizeOptions(model="m", output="o", method="gptq", bits=4, sym=True, **expected)
    ]


@pytest.mark.parametrize("name", ["WAITING_SERVED_RATIO", "TGI_WAITING_SERVED_RATIO"])
def test_the_routers_own_default_gives_way_to_a_variable(name: str) -> None:
    assert router_arguments(["-p", "80"], {name: "0.5"}) == ["serve", "-p", "80"]


@pytest.mark.parametrize(
    ("environ", "model"),
    [
        ({"TOKENIZER_NAME": "x"}, ["--model-id", "x"]),
        ({"TGI_TOKENIZER_NAME": "y", "TOKENIZER_NAME": "x"}, ["--model-id", "y"]),
        ({"TOKENIZER_NAME": "x", "MODEL_ID": "z"}, []),
        ({"TOKENIZER_NAME": ""}, []),
    ],
)
def test_the_routers_variable_names_the_model(environ: dict[str, str], model: list[str]) -> None:
    arguments = router_arguments(["-p", "80"], {"WAITING_SERVED_RATIO": "0.5", **environ})

    assert arguments == ["serve", *model, "-p", "80"]


def test_the_routers_schema_is_tgis() -> None:
    assert router_arguments(["print-schema"], {}) == ["print-schema"]


def test_values_that_look_like_flags_of_old_are_left_alone() -> None:
    assert server_arguments(["serve", "x", "--revision=--uds-path=1"]) == [
        "serve",
        "x",
        "--revision=--uds-path=1",
    ]


def test_every_program_is_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    assert set(scripts) == {
        "tgi",
        *(f"text-generation-{name}" for name in ("launcher", "router", "server")),
    }
    for target in scripts.values():
        assert callable(getattr(programs, target.partition(":")[2]))
