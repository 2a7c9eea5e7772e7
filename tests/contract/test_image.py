"""The image's targets and what starts in them: arguments of TGI's image work unchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer

from tests.architecture.imports import ROOT
from tests.contract.test_deploy import asked_by_probe
from tgi_cli.app import app
from tools.dockerfile import Stage, assignments, chain, command, fact, options, parse

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TARGETS = ("cpu", "cuda", "sagemaker")
PORTS = {"cpu": "80", "cuda": "80", "sagemaker": "8080"}
ENTRYPOINT = ROOT / "deploy/entrypoint.sh"
SAGEMAKER = ROOT / "deploy/sagemaker-entrypoint.sh"
STUB = """#!/bin/sh
echo "arguments: $*"
for name in MODEL_ID REVISION NUM_SHARD QUANTIZE TRUST_REMOTE_CODE; do
    if eval "[ \\${$name+set} ]"; then eval "echo $name=\\$$name"; fi
done
"""


def stages_of(target: str, **build_args: str) -> list[Stage]:
    return chain(parse(TEXT, build_args), target)


def variables_of(stages: list[Stage]) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage in stages:
        for each in stage.instructions:
            if each.word == "ENV":
                found |= assignments(each.text, found)
    return found


def start(script: Path, folder: Path, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    """Run an entry point with a `tgi` that only tells; return the exit code and all lines."""
    tgi = folder / "tgi"
    tgi.write_text(STUB)
    tgi.chmod(0o755)
    done = subprocess.run(
        [script, *arguments],
        env={"PATH": f"{folder}:{os.environ['PATH']}", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_serves_as_a_user_on_its_port_and_is_asked_there(target: str) -> None:
    stages = stages_of(target)
    variables = variables_of(stages)

    check = fact(stages, "HEALTHCHECK")
    assert check is not None
    assert asked_by_probe(command(check), variables["PORT"]) == ("live", int(PORTS[target]))
    assert fact(stages, "EXPOSE") == PORTS[target]
    assert fact(stages, "USER") == "1000"
    assert fact(stages, "VOLUME") == variables["HF_HOME"] == "/data"


@pytest.mark.parametrize(
    ("target", "script"), [("cpu", ENTRYPOINT), ("cuda", ENTRYPOINT), ("sagemaker", SAGEMAKER)]
)
def test_a_target_starts_its_script(target: str, script: Path) -> None:
    stages = stages_of(target)
    copied = {}
    for stage in stages:
        for each in stage.instructions:
            if each.word == "COPY":
                given, paths = options(each.text)
                *sources, destination = paths.split()
                copied[destination] = (sources, given.get("chmod"))

    (name,) = command(fact(stages, "ENTRYPOINT") or "")

    assert copied[f"/usr/local/bin/{name}"] == ([str(script.relative_to(ROOT))], "755")
    assert os.access(script, os.X_OK)


def test_the_cpu_image_is_built_when_no_target_is_named() -> None:
    *built, last = stages_of("")

    assert built == stages_of("cpu")
    assert last.instructions == ()


def test_a_sagemaker_image_is_built_on_either() -> None:
    on_cuda = stages_of("sagemaker", SAGEMAKER_FROM="cuda")

    assert [stage.name for stage in stages_of("sagemaker")] == ["system", "cpu", "sagemaker"]
    assert [stage.name for stage in on_cuda] == ["system", "cuda", "sagemaker"]
    assert variables_of(on_cuda)["NVIDIA_VISIBLE_DEVICES"] == "all"


def test_images_are_built_on_one_pinned_tag() -> None:
    stages = parse(TEXT, {})
    names = {stage.name for stage in stages}

    (image,) = {stage.parent for stage in stages} - names

    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", image)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint isn't installed")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)

    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--model-id", "org/name", "--num-shard", "1"),
        ("--json-output",),
        ("-p", "80"),
        ("org/name",),
    ],
)
def test_arguments_of_a_container_are_those_of_serve(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    expected = " ".join(["arguments:", "serve", *arguments])

    assert start(ENTRYPOINT, tmp_path, *arguments) == (0, [expected])


def names_of_commands() -> list[str]:
    group = typer.main.get_command(app)
    assert isinstance(group.commands, Mapping)  # type: ignore[attr-defined]
    return sorted(group.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", names_of_commands())
def test_a_container_runs_every_command(name: str, tmp_path: Path) -> None:
    ran = start(ENTRYPOINT, tmp_path, name, "--help", "a b")

    assert ran == (0, [f"arguments: {name} --help a b"])


def test_sagemakers_variables_become_ours_where_they_are_not_empty(tmp_path: Path) -> None:
    _, lines = start(
        SAGEMAKER,
        tmp_path,
        "serve",
        HF_MODEL_ID="org/a name",
        HF_MODEL_REVISION="",
        SM_NUM_GPUS="1",
        HF_MODEL_TRUST_REMOTE_CODE="true",
    )

    assert lines == [
        "arguments: serve --port 8080",
        "MODEL_ID=org/a name",
        "NUM_SHARD=1",
        "TRUST_REMOTE_CODE=true",
    ]


@pytest.mark.parametrize("variables", [{}, {"HF_MODEL_ID": ""}, {"MODEL_ID": "org/name"}])
def test_a_sagemaker_container_without_its_model_ends(
    variables: dict[str, str], tmp_path: Path
) -> None:
    ended = start(SAGEMAKER, tmp_path, "serve", SM_NUM_GPUS="1", **variables)

    assert ended == (1, ["HF_MODEL_ID must be set"])


@pytest.mark.parametrize("arguments", [(), ("serve",)])
def test_other_arguments_of_a_sagemaker_container_are_those_of_serve(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    _, lines = start(
        SAGEMAKER, tmp_path, *arguments, "--max-total-tokens", "64", HF_MODEL_ID="x", REVISION="v1"
    )

    assert lines == [
        "arguments: serve --port 8080 --max-total-tokens 64",
        "MODEL_ID=x",
        "REVISION=v1",
    ]
