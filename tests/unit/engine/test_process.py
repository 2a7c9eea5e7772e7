"""What an engine's process does when a step can't be answered."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.builders.engine import engine_config, request
from tests.builders.overlapped import make_overlapped
from tgi_cli.errors import EngineDiedError
from tgi_cli.runtime.engine import process
from tgi_cli.runtime.engine.engine import STEP_FAILED, Engine
from tgi_cli.runtime.ipc.channel import EngineChannel, encode_frame
from tgi_cli.runtime.ipc.messages import EngineReady, ShutDown, StartEngine, StepOutput

READY = EngineReady(num_blocks=1, block_size=4, weights_bytes=0, load_s=0.0, kernels="none")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], tuple[int, list[Any]]]:
    """Serve an engine with one request, then a `ShutDown`; return the exit code and the answers."""

    def run(engine: Engine) -> tuple[int, list[Any]]:
        config = engine_config()
        monkeypatch.setattr(process, "_start", lambda _: (engine, READY))
        monkeypatch.setattr(process, "configure_logging", lambda *_, **__: None)
        monkeypatch.setattr(process.cpu, "prepare_process", lambda _: None)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            start = StartEngine(msgspec.json.encode(config))
            ours.sendall(encode_frame(start) + encode_frame(request(0, max_new_tokens=2)))
            channel = EngineChannel(theirs)
            answers: list[Any] = []

            def send(message: Any) -> None:
                answers.append(message)
                if isinstance(message, StepOutput):
                    ours.sendall(encode_frame(ShutDown()))

            monkeypatch.setattr(channel, "send", send)
            return process._serve(channel), answers

    return run


def test_a_lost_device_ends_the_process_with_a_reason_and_without_an_answer(serve, caplog):
    engine, runner, sampler = make_overlapped()
    sampler.fails = [RuntimeError("CUDA error: an illegal memory access was encountered")]

    def recover(exc: Exception) -> bool:
        raise EngineDiedError("The GPU computes nothing more.") from exc

    runner.recover = recover  # type: ignore[method-assign]

    with caplog.at_level(logging.CRITICAL):
        exit_code, answers = serve(engine)

    assert exit_code == EngineDiedError.exit_code != 0
    assert answers == [READY]
    assert "The GPU computes nothing more." in caplog.text


def test_a_step_that_raises_is_answered_and_the_process_goes_on(serve, monkeypatch, caplog):
    engine, _, _ = make_overlapped()
    monkeypatch.setattr(engine, "_plan", lambda **_: 1 / 0)

    exit_code, answers = serve(engine)

    assert exit_code == 0
    [_, output] = answers
    assert [(f.request_id, f.message) for f in output.failures] == [(0, STEP_FAILED)]
