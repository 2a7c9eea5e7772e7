from __future__ import annotations

import platform

import pytest

from tests.builders.serving import gpu_stack, hardware
from tgi_cli import __version__
from tgi_cli.runtime.config.facts import GpuStack
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.serving import environment_report


def report(options: ServeOptions, num_cores: int = 2) -> str:
    machine = hardware(num_cores=num_cores)
    return "\n".join(environment_report.environment_report(options, machine))


def test_versions_machine_and_build_are_reported() -> None:
    text = report(ServeOptions(docker_label="nightly", build_sha="c0ffee"), num_cores=3)

    assert text.startswith("Runtime environment:\n")
    assert f"Version: {__version__}\n" in text
    assert f"Python version: {platform.python_version()}\n" in text
    assert "Commit sha: c0ffee\nDocker label: nightly\n" in text
    assert ", 3 of " in text


def test_a_machine_without_a_driver_lists_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_report.shutil, "which", lambda _: None)

    assert report(ServeOptions()).endswith("nvidia-smi:\nN/A")


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (GpuStack(), "GPUs: this machine shows no GPU\n"),
        (gpu_stack(), "GPUs: NVIDIA H100 80GB HBM3 (sm_90, 80.00 GiB)\n"),
        (
            gpu_stack(torch_cuda=None),
            "(sm_90, 80.00 GiB); not used: the installed torch is built without CUDA\n",
        ),
    ],
)
def test_gpus_are_listed_with_what_is_in_the_way_of_using_them(
    gpus: GpuStack, expected: str
) -> None:
    lines = environment_report.environment_report(ServeOptions(), hardware(gpus=gpus))

    assert expected in "\n".join(lines)


def test_a_driver_that_fails_is_no_reason_not_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_report.shutil, "which", lambda _: "/bin/false")

    assert report(ServeOptions()).endswith("nvidia-smi:\nN/A")


def test_secrets_are_not_reported() -> None:
    assert "hunter2" not in report(ServeOptions(api_key="hunter2", hf_token="hunter2"))
