"""schemathesis tries what the OpenAPI document says, and what it doesn't, on a served fake engine.

`make fuzz` installs it in an environment of its own and runs this with FUZZ_EXAMPLES cases for each
operation; in an ordinary run of the tests, where it isn't installed, this is skipped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.builders.served import served

ROOT = Path(__file__).parents[2]
SCHEMATHESIS = Path(os.environ.get("SCHEMATHESIS", ROOT / ".venv-fuzz/bin/schemathesis"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="make fuzz installs schemathesis")
def test_no_case_gives_an_undocumented_answer(tmp_path):
    examples = os.environ.get("FUZZ_EXAMPLES", "5")
    with served("--model-id", "demo", "--engine", "fake") as server:
        url = server.wait_ready()
        done = subprocess.run(
            [
                *(SCHEMATHESIS, "run", f"{url}/api-doc/openapi.json"),
                *("--phases", "examples,coverage,fuzzing", "--max-examples", examples),
                *("--checks", CHECKS, "--continue-on-failure", "--request-timeout", "30"),
                *("--generation-database", "none", "--warnings", "off"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        is_alive = server.engine().is_running()

    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-4000:]
    assert is_alive
