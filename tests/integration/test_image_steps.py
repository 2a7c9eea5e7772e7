"""The Dockerfile's steps, carried out in bare roots, end in an image that answers.

Needs root, debootstrap and the network. PROVE_IMAGE_ARGS holds further arguments of
`python -m tools.prove_image`, such as --bind for pip's settings of this machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.imports import ROOT

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("debootstrap") is None,
        reason="needs root, and Debian's package debootstrap",
    ),
]

TARGETS = {
    "cpu": ["--target", "cpu", "--", "--model-id", "demo"],
    "sagemaker": ["--target", "sagemaker", "--env", "HF_MODEL_ID=demo", "--", "serve"],
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_built_and_answers(target: str, work: Path) -> None:
    given = shlex.split(os.environ.get("PROVE_IMAGE_ARGS", ""))

    proved = subprocess.run(
        [sys.executable, "-m", "tools.prove_image", "--work", work, *given, *TARGETS[target]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert "200 {" in proved.stdout
    assert "SIGTERM: exit code 0" in proved.stdout
