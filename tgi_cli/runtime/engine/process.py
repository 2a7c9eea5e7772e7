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

from tgi_cli.errors import CapacityError, EngineDiedError, StartError
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
        # As a crash: the main process starts another engine, and sends it the open requests.
        _log.critical("event=engine_died reason=%s", exc, exc_info=exc.__cause__)
        return exc.exit_code


def _start(config: EngineConfig) -> tuple[Engine, EngineReady]:
    """Load the model and run its first steps."""
    # Imported here, and not above, because torch reads the thread settings when it is loaded.
    from tgi_cli.kernels import native
    from tgi_cli.kernels.paged_attention import choose as choose_attention
    from tgi_cli.runtime.engine.determinism import Determinism
    from tgi_cli.runtime.engine.engine import Engine
    from tgi_cli.runtime.engine.runner import Runner
    from tgi_cli.runtime.models.loader import load_model

    started_at = time.monotonic()
    if not config.custom_kernels:
        native.turn_off()
    cpu.set_num_threads(config.num_threads)
    try:
        attention = choose_attention(
            config.model.num_heads, config.model.num_kv_heads, config.model.head_dim
        )
        model = load_model(config.model, config.weights, config.dtype, attention)
    except MemoryError as exc:
        raise CapacityError(
            "The model's weights don't fit this machine's memory.",
            hint="Use a smaller or a quantised model, or free memory.",
        ) from exc
    try:
        runner = Runner(config, model, attention)
        engine = Engine(config, runner)
    except MemoryError as exc:
        raise CapacityError(
            f"The system grants no memory for a KV cache of {config.num_blocks} blocks.",
            hint="Lower --max-batch-total-tokens.",
        ) from exc
    _log.info("Warming up model")
    try:
        engine.warm_up()
    except RuntimeError as exc:
        _log.exception("event=warm_up_failed")
        raise CapacityError(
            f"Not enough memory to handle {config.max_step_tokens} prefill tokens. "
            "You need to decrease `--max-batch-prefill-tokens`"
        ) from exc
    if config.verify_determinism:
        Determinism(runner, config).verify()
        _log.info("event=determinism_verified")
    # What is there now stays; without this the collector would walk through all of torch again.
    gc.collect()
    gc.freeze()
    return engine, EngineReady(
        num_blocks=config.num_blocks,
        block_size=config.block_size,
        weights_bytes=model.num_bytes,
        load_s=time.monotonic() - started_at,
        kernels=cpu.describe_kernels(),
    )


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
