"""An engine process: load, warm up, then step until the router is gone or says stop.

Its one connection is a socket inherited from the main process. Whatever ends the main process
ends this one: the socket closes, and on Linux the kernel signals it too, so that no orphan
outlives a `kill -9`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from tgi_cli.errors import EngineDiedError, StartError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.ipc.channel import EngineChannel, PeerGone
from tgi_cli.runtime.ipc.messages import (
    AbortRequest,
    EngineFailed,
    EngineReady,
    NewRequest,
    ShutDown,
    StartEngine,
    StepOutput,
    ToEngine,
)
from tgi_cli.runtime.logs import configure_logging
from tgi_cli.runtime.platforms import cpu

if TYPE_CHECKING:
    from tgi_cli.runtime.engine.engine import Engine
    from tgi_cli.runtime.engine.loaded import Loaded

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_COMPILE_CHECK_S = 0.002  # a grammar that nothing else runs beside is looked for this often


def main() -> int:
    """Serve the channel whose file descriptor is the argument; return the exit code."""
    parser = argparse.ArgumentParser(prog="tgi-engine")
    parser.add_argument("--channel-fd", type=int, required=True)
    channel = EngineChannel(socket.socket(fileno=parser.parse_args().channel_fd))
    _die_with_parent()
    try:
        return _serve(channel)
    except PeerGone:
        return 0  # the main process has ended; there is nobody left to tell


def _die_with_parent() -> None:
    # Ctrl-C and SIGTERM are the main process's to handle: it drains, then says ShutDown.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(channel: EngineChannel) -> int:
    first, *rest = channel.receive(wait=True)
    assert isinstance(first, StartEngine), first
    config = msgspec.json.decode(first.config, type=EngineConfig)
    configure_logging(config.log, rank=0)
    cpu.prepare_process(config.num_threads)
    try:
        engine, ready = _start(config)
    except StartError as exc:
        channel.send(EngineFailed(exc.kind, exc.message, exc.hint))
        return exc.exit_code
    channel.send(ready)
    try:
        return _loop(channel, engine, rest)
    except EngineDiedError as exc:
        # As a crash: the main process answers the open requests with an error, and ends.
        _log.critical("event=engine_died reason=%s", exc, exc_info=exc.__cause__)
        return exc.exit_code


def _start(config: EngineConfig) -> tuple[Engine, EngineReady]:
    """Load the model and run its first steps."""
    # Imported here, and not above, because torch reads the thread settings when it is loaded.
    from tgi_cli.runtime.engine.determinism import Determinism

    started_at = time.monotonic()
    cpu.set_num_threads(config.num_threads)
    loaded = _load(config)
    if config.verify_determinism:
        Determinism(loaded.runner, loaded.config).verify()
        _log.info("event=determinism_verified")
    # What is there now stays; without this the collector would walk through all of torch again.
    gc.collect()
    gc.freeze()
    return loaded.engine, EngineReady(
        num_blocks=loaded.config.num_blocks,
        block_size=loaded.config.block_size,
        weights_bytes=loaded.weights_bytes,
        load_s=time.monotonic() - started_at,
        kernels=loaded.kernels,
    )


def _load(config: EngineConfig) -> Loaded:
    if config.device == "cuda":
        from tgi_cli.runtime.engine.gpu_parts import PARTS
        from tgi_cli.runtime.engine.load_gpu import load, open_gpu

        return load(config, open_gpu(), PARTS)
    from tgi_cli.runtime.engine import load_cpu

    return load_cpu.load(config)


def _loop(channel: EngineChannel, engine: Engine, messages: list[ToEngine]) -> int:
    while True:
        for message in messages:
            match message:
                case NewRequest():
                    engine.add(message)
                case AbortRequest():
                    engine.abort(message.request_id)
                case ShutDown():
                    return 0
        if engine.has_work:
            channel.send(_step(engine))
        elif any(isinstance(message, AbortRequest) for message in messages):
            channel.send(engine.report())  # no step will say that the blocks are free
        messages = channel.receive(
            wait=not engine.has_work, at_most_s=_COMPILE_CHECK_S if engine.is_compiling else None
        )


def _step(engine: Engine) -> StepOutput:
    try:
        return engine.step()
    except EngineDiedError:
        raise
    except Exception:
        # The edge of the process: the requests of this step get an answer, the others go on.
        _log.exception("event=step_failed")
        return engine.fail_running()
