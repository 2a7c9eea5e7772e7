from __future__ import annotations

import os
import signal

import psutil
import pytest

from tgi_cli.errors import EngineDiedError
from tgi_cli.runtime.ipc.client import EngineClient
from tgi_cli.runtime.serving.supervisor import EngineProcess, describe_exit


async def test_an_engine_answers_on_its_channel_and_ends_when_told() -> None:
    process = await EngineProcess.start("fake", num_threads=1)
    client = await EngineClient.connect(process.sock)

    client.start(b"{}")
    await client.wait_ready()
    client.shut_down()
    await process.end()

    assert not psutil.pid_exists(process.pid)
    client.close()


async def test_an_engine_ends_when_its_channel_closes() -> None:
    process = await EngineProcess.start("fake", num_threads=1)
    client = await EngineClient.connect(process.sock)

    client.close()

    assert await process.wait() == "exit code 0"


async def test_a_killed_engine_closes_its_channel() -> None:
    process = await EngineProcess.start("fake", num_threads=1)
    client = await EngineClient.connect(process.sock)

    os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(EngineDiedError):
        await client.wait_ready()
    await client.closed.wait()
    assert await process.wait() == "signal SIGKILL"


async def test_killing_twice_is_no_error() -> None:
    process = await EngineProcess.start("fake", num_threads=1)

    await process.kill()
    await process.kill()
    process.sock.close()

    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize(
    ("exit_code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-15, "signal SIGTERM")]
)
def test_exits_are_described(exit_code: int, text: str) -> None:
    assert describe_exit(exit_code) == text
