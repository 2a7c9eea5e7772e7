"""The SageMaker image's entry point with the real server: what SageMaker asks is answered."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.architecture.imports import ROOT
from tests.builders.served import served


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Make a search path with `tgi` on it."""
    command = tmp_path / "tgi"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -u -m tgi_cli "$@"\n')
    command.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_sagemaker_is_answered(path: str) -> None:
    program = (str(ROOT / "deploy/sagemaker-entrypoint.sh"), "serve")

    with served(
        *("--engine", "fake"), program=program, PATH=path, PYTHONPATH=str(ROOT), HF_MODEL_ID="demo"
    ) as server:
        url = server.wait_ready()
        with urllib.request.urlopen(f"{url}/ping", timeout=30) as answer:
            pinged = answer.status
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 3}}
        invocation = urllib.request.Request(
            f"{url}/invocations", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(invocation, timeout=30) as answer:
            replied = json.load(answer)

    assert pinged == 200
    assert replied[0]["generated_text"]
