"""`tgi download` as people run it: processes of its own against a hub of ours."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders.download import MODEL, model_files, weights
from tests.builders.files import gguf_bytes
from tests.builders.hub import FakeHub, Fault, running_hub

WEIGHTS = "model.safetensors"
BIG = weights(5_000_003)
TOKEN = "hf_SECRETSECRETSECRET"
_TIMEOUT_S = 60


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as found:
        found.publish(model_files(**{WEIGHTS: BIG}))
        yield found


class Command:
    """`tgi download` with a cache of its own."""

    def __init__(self, hub: FakeHub, home: Path) -> None:
        unset = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN", "HF_HUB_CACHE")
        self.environment = {k: v for k, v in os.environ.items() if k not in unset}
        self.environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NO_COLOR": "1"}
        self.snapshots = home / "hub" / "models--somebody--tiny" / "snapshots"

    def start(self, *args: str, **streams: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tgi_cli", "download", "--min-free", "0", *args],
            env=self.environment,
            text=True,
            start_new_session=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},  # type: ignore
        )

    def run(self, *args: str, **variables: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        self.environment |= variables
        process = self.start(*args)
        out, err = process.communicate(timeout=_TIMEOUT_S)
        return process.returncode, out, err


@pytest.fixture
def command(hub: FakeHub, tmp_path: Path) -> Command:
    return Command(hub, tmp_path / "home")


@contextmanager
def held(hub: FakeHub, name: str) -> Iterator[threading.Event]:
    """Hold the next answer about a file after its half; yield the event of that moment."""
    reached, go_on = threading.Event(), threading.Event()
    hub.fail(name, Fault(wait_for=go_on, reached=reached))
    try:
        yield reached
    finally:
        go_on.set()


def test_the_last_line_is_the_path_and_lines_tell_how_far_it_is(
    command: Command, hub: FakeHub
) -> None:
    hub.fail(WEIGHTS, Fault(cut_at=3_000_000))

    code, out, err = command.run(MODEL)

    commit = hub.refs[f"{MODEL}@main"]
    assert code == 0, err
    assert out.splitlines()[-1] == str(command.snapshots / commit)
    assert f"{MODEL} at commit {commit} (main): 3 file(s), 5.0 MB, 5.0 MB fetched" in out
    assert re.search(r"INFO .*download: 3 file\(s\), 5\.0 MB", err)
    assert "model.safetensors: the connection broke off; trying again in 1 s" in err
    assert "downloaded: 5.0 MB of 5.0 MB" in err


def test_quiet_json_and_dry_run_are_for_scripts(command: Command, hub: FakeHub) -> None:
    code, out, err = command.run(MODEL, "--dry-run", "--json", "-q")

    plan = json.loads(out)
    assert (code, err) == (0, "")
    assert plan["commit"] == hub.refs[f"{MODEL}@main"]
    assert {file["name"]: file["cached"] for file in plan["files"]} == {
        "config.json": False,
        "tokenizer.json": False,
        WEIGHTS: False,
    }
    assert plan["total_bytes"] == plan["missing_bytes"] > len(BIG)
    assert not command.snapshots.exists()

    code, out, err = command.run(MODEL, "-q")

    assert (code, out, err) == (0, f"{plan['path']}\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_what_has_arrived_and_the_next_run_goes_on(
    number: signal.Signals, command: Command, hub: FakeHub
) -> None:
    def arrived_of_weights() -> int:
        # Of this file alone: the small ones come and go beside it.
        partial = command.snapshots.parent.rglob(f"{hashlib.sha256(BIG).hexdigest()}*.incomplete")
        return sum(path.stat().st_size for path in partial)

    with held(hub, WEIGHTS) as reached:
        process = command.start(MODEL)
        assert reached.wait(_TIMEOUT_S)
        while arrived_of_weights() == 0:
            assert process.poll() is None
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=_TIMEOUT_S)
    arrived = arrived_of_weights()

    code, _, _ = command.run(MODEL)

    assert process.returncode == 130
    assert err.splitlines()[-1] == "Interrupted. The same command goes on from here."
    assert "Traceback" not in err
    assert hub.asked_for(WEIGHTS)[-1].first_byte == arrived > 0
    assert code == 0
    [placed] = command.snapshots.glob(f"*/{WEIGHTS}")
    assert placed.read_bytes() == BIG


def test_two_downloads_at_once_fetch_once_and_both_succeed(command: Command, hub: FakeHub) -> None:
    with held(hub, WEIGHTS) as reached:
        first = command.start(MODEL)
        assert reached.wait(_TIMEOUT_S)
        second = command.start(MODEL)
        assert second.stderr is not None
        line = next(line for line in second.stderr if "waiting" in line)
    outcomes = [process.communicate(timeout=_TIMEOUT_S) for process in (first, second)]

    assert "another process downloads this model" in line
    assert [first.returncode, second.returncode] == [0, 0]
    assert outcomes[0][0].splitlines()[-1] == outcomes[1][0].splitlines()[-1]
    assert len(hub.asked_for(WEIGHTS)) == 1


def test_a_process_that_was_killed_blocks_nobody(command: Command, hub: FakeHub) -> None:
    with held(hub, WEIGHTS) as reached:
        process = command.start(MODEL)
        assert reached.wait(_TIMEOUT_S)
        process.kill()
        process.communicate(timeout=_TIMEOUT_S)

    code, _, err = command.run(MODEL)

    assert code == 0, err
    assert "waiting" not in err


def test_the_token_is_used_and_never_shown(command: Command, hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    hub.fail("info", Fault(status=403))

    refused = command.run(
        MODEL, "--token-file", str(tmp_path / "token"), "--log-level", "debug", HF_DEBUG="1"
    )
    worked = command.run(MODEL, "--log-level", "debug", HF_API_TOKEN=TOKEN)

    assert refused[0] == 3
    assert "Error: somebody/tiny: the token may not read this (403)." in refused[2]
    assert worked[0] == 0
    sent = {(asked.host, asked.headers.get("authorization")) for asked in hub.asked}
    assert sent == {("hub", f"Bearer {TOKEN}"), ("cdn", None)}
    assert all(TOKEN not in text for _, *texts in (refused, worked) for text in texts)


def test_the_hub_learns_nothing_but_what_is_asked_for(command: Command, hub: FakeHub) -> None:
    command.run(MODEL, AGENT="somebody", AI_AGENT="somebody")

    paths = {asked.path for asked in hub.asked if asked.host == "hub"}
    assert all(MODEL in path for path in paths)
    assert {asked.headers["user-agent"].partition("/")[0] for asked in hub.asked} == {"tgi"}
    assert not any("torch" in asked.headers["user-agent"] for asked in hub.asked)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["nobody/nothing"], 3, "no such repository on the hub"),
        ([f"{MODEL}@v9"], 3, "no revision 'v9'"),
        ([MODEL, "--offline"], 3, "isn't in the cache"),
        (["somebody/quants"], 2, "2 GGUF files would do"),
        (
            [MODEL, "--cache-dir", "a", "--local-dir", "b"],
            2,
            "Error: give --cache-dir or --local-dir",
        ),
        (["./nowhere"], 3, "no such file or folder"),
        (["a" * 5_000], 3, "neither a path nor a hub id"),
    ],
)
def test_each_outcome_has_its_code(
    args: list[str], code: int, text: str, command: Command, hub: FakeHub
) -> None:
    hub.publish(
        dict.fromkeys(["a.Q4_0.gguf", "a.Q8_0.gguf"], gguf_bytes({}, {})), "somebody/quants"
    )

    found, out, err = command.run(*args)

    assert (found, out) == (code, "")
    assert text in err
    assert "Traceback" not in err


def test_bars_are_drawn_on_a_terminal(command: Command) -> None:
    master, slave = pty.openpty()
    command.environment |= {"TERM": "xterm", "COLUMNS": "120"}
    process = command.start(MODEL, stderr=slave)
    os.close(slave)
    drawn = b""
    try:
        while piece := os.read(master, 65_536):
            drawn += piece
    except OSError:  # how a terminal says that the other side is gone
        pass
    out, _ = process.communicate(timeout=_TIMEOUT_S)
    os.close(master)

    assert process.returncode == 0
    assert b"Download 3 file(s)" in drawn
    assert b"5.0 MB" in drawn
    assert b"INFO" not in drawn
    assert out.splitlines()[-1].startswith(str(command.snapshots))
