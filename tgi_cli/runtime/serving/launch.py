"""`tgi serve` from start to stop.

    locate the model ─► decide ─► spawn the engine ─► tokenizer, template ─► wait ─► listen
        ─► SIGTERM: drain, stop the engine, 0   or   the engine dies: fail what is open, 1

The port opens when the model has answered its warm-up: that is how TGI tells that it is ready.
Whatever was started is on one exit stack, so that no way out leaves a process behind.
Spec: scheduling.md section 9, metrics.md section 5 (the log lines).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import sys
import time
from contextlib import AsyncExitStack
from typing import TypeVar

import msgspec

from tgi_cli.errors import EngineDiedError, StartError
from tgi_cli.runtime.config.check_options import asked_input_tokens, check_options
from tgi_cli.runtime.config.facts import HardwareFacts
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolve import log_config, resolve
from tgi_cli.runtime.config.resolved import ResolvedConfig, RouterConfig
from tgi_cli.runtime.config.settings import SETTINGS
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.ipc.client import EngineClient
from tgi_cli.runtime.ipc.messages import EngineReady
from tgi_cli.runtime.logs import configure_logging
from tgi_cli.runtime.router.api_keys import ApiKeys
from tgi_cli.runtime.router.server import RouterServer
from tgi_cli.runtime.router.tracing import check_tracing
from tgi_cli.runtime.serving.daemon_thread import is_any_running, run_in_daemon_thread
from tgi_cli.runtime.serving.environment_report import environment_report
from tgi_cli.runtime.serving.gpus import read_gpus
from tgi_cli.runtime.serving.hardware import read_hardware
from tgi_cli.runtime.serving.screen import Screen
from tgi_cli.runtime.serving.stop_signals import StopSignals
from tgi_cli.runtime.serving.supervisor import EngineProcess
from tgi_cli.runtime.text.chat_template import ChatTemplate
from tgi_cli.runtime.text.grammar_checker import GrammarChecker
from tgi_cli.runtime.text.tokenizer import Tokenizer

T = TypeVar("T")

_log = logging.getLogger(__name__)
_USER_OF_URL = re.compile(r"//[^/@\s]*@")
_WAITING_LOG_S = 10.0
_LAST_WORDS_S = 5.0  # for the errors of a dead engine's requests to reach their clients


def serve(options: ServeOptions, screen: Screen, warnings: tuple[str, ...] = ()) -> int:
    """Serve until told to stop; return the exit code. Raises `StartError`."""
    configure_logging(log_config(options))
    _log_arguments(options)
    for warning in warnings:
        _log.warning(warning)
    # Who computes on the CPU need not wait for a driver.
    gpus = None if options.device == "cpu" else read_gpus(options.cuda_visible_devices)
    hardware = read_hardware(gpus=gpus)
    if options.env:
        for line in environment_report(options, hardware):
            _log.info("%s", line)
    check_options(options, hardware.gpus)
    ApiKeys(options.api_key, options.api_key_file)  # a bad file ends the start here, not at its end
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        exit_code = runner.run(_Launch(options, hardware, screen).run())
    if is_any_running():  # a download that was told to stop; the interpreter would wait for it
        logging.shutdown()
        os._exit(exit_code)
    return exit_code


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


class _Launch:
    def __init__(self, options: ServeOptions, hardware: HardwareFacts, screen: Screen) -> None:
        self._options = options
        self._hardware = hardware
        self._screen = screen
        self._signals = StopSignals()

    async def run(self) -> int:
        self._signals.install()
        async with AsyncExitStack() as stack:
            start = asyncio.create_task(self._start(stack))
            if not await _done_before(start, self._signals.graceful):
                await _cancel(start)
                return 0
            return await self._watch(start.result())

    async def _start(self, stack: AsyncExitStack) -> _Server:
        model = await self._locate()
        config = resolve(self._options, model, self._hardware)
        check_tracing(config.router)
        self._log_decisions(config)
        self._screen.decided(config)

        started_at = time.monotonic()
        _log.info("Starting shard")
        process = await EngineProcess.start(
            self._options.engine, config.engine.num_threads, self._options.cuda_visible_devices
        )
        stack.push_async_callback(process.kill)
        engine = await EngineClient.connect(process.sock)
        stack.callback(engine.close)
        engine.start(msgspec.json.encode(config.engine))

        # While the engine loads.
        tokenizer = await asyncio.to_thread(Tokenizer, model.text)
        chat_template = ChatTemplate(model.text)
        stack.push_async_callback(chat_template.close)
        await chat_template.start()
        checker = GrammarChecker(
            model.text.tokenizer_json, model.config.vocab_size, model.eos_token_ids
        )
        stack.push_async_callback(checker.close)
        supports_grammars = await _check_guidance(config.router, checker)

        ready = await _wait_ready(engine, process)
        _log.info("Shard ready in %.1fs", time.monotonic() - started_at)
        if ready.num_blocks < config.engine.num_blocks:
            config = self._complete(config, model, ready)

        _log.info("Starting Webserver")
        router_config = msgspec.structs.replace(config.router, supports_grammars=supports_grammars)
        router = RouterServer(router_config, engine, tokenizer, chat_template, checker)
        stack.push_async_callback(router.close)
        try:
            await router.start()
        except StartError:
            _log.error("Webserver Crashed")
            raise
        _log.info("Connected", extra={"url": router.url})
        self._screen.listening(router.url, needs_key=config.router.needs_key)
        return _Server(router, engine, process, config.router.graceful_termination_timeout_s)

    async def _locate(self) -> LocatedModel:
        options = self._options
        return await run_in_daemon_thread(
            lambda: locate_model(
                options.model_id,
                revision=options.revision,
                cache_dir=options.huggingface_hub_cache,
                weights_folder=options.weights_cache_override,
                token=options.hf_token,
                tokenizer_config_path=options.tokenizer_config_path,
            )
        )

    def _log_decisions(self, config: ResolvedConfig) -> None:
        for warning in config.warnings:
            _log.warning(warning)
        options, router, engine = self._options, config.router, config.engine
        device = next(decision for decision in config.decisions if decision.name == "device")
        _log.info("Using device %s: %s", device.value, device.reason)
        if options.max_batch_prefill_tokens is None:
            _log.info("Default `max_batch_prefill_tokens` to %d", router.max_batch_prefill_tokens)
        caching = str(engine.prefix_caching).lower()
        _log.info("Using attention %s - Prefix caching %s", engine.attention, caching)
        is_asked = options.cuda_graphs is not None and engine.device == "cuda"
        _log.info(
            "Using %scuda graphs %s", "" if is_asked else "default ", list(engine.cuda_graphs)
        )
        self._log_limits(config)

    def _complete(
        self, bound: ResolvedConfig, model: LocatedModel, ready: EngineReady
    ) -> ResolvedConfig:
        """Decide again, with the KV blocks for which the engine has found memory.

        Raises:
            CapacityError: one request of the length asked for doesn't fit them.
        """
        config = resolve(self._options, model, self._hardware, ready.num_blocks)
        for warning in config.warnings:
            if warning not in bound.warnings:
                _log.warning(warning)
        self._log_limits(config)
        return config

    def _log_limits(self, config: ResolvedConfig) -> None:
        options, router, engine = self._options, config.router, config.engine
        if asked_input_tokens(options) is None:
            _log.info("Maximum input tokens defaulted to %d", router.limits.max_input_tokens)
        if options.max_total_tokens is None:
            _log.info("Maximum total tokens defaulted to %d", router.limits.max_total_tokens)
        _log.info("Setting max batch total tokens to %d", router.max_batch_total_tokens)
        _log.info("KV-cache blocks: %d, size: %d", engine.num_blocks, engine.block_size)

    async def _watch(self, server: _Server) -> int:
        """Wait until the engine dies or somebody wants us to stop; see it through."""
        death = asyncio.create_task(server.engine.closed.wait())
        is_dead = await _done_before(death, self._signals.graceful)
        await _cancel(death)
        if not is_dead:
            return await self._stop(server)
        _log.error("Shard 0 crashed (%s)", await server.process.wait())
        await server.router.drain(_LAST_WORDS_S)
        return 1

    async def _stop(self, server: _Server) -> int:
        """Let open requests finish, then end the engine; a second signal cuts both short."""
        drain = asyncio.create_task(server.router.drain(server.drain_timeout_s))
        if not await _done_before(drain, self._signals.now):
            await _cancel(drain)
            return 0
        if server.engine.closed.is_set():
            _log.error("Shard 0 crashed (%s)", await server.process.wait())
            return 1
        server.engine.shut_down()
        await server.process.end()
        return 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Server:
    """A server that listens."""

    router: RouterServer
    engine: EngineClient
    process: EngineProcess
    drain_timeout_s: float


async def _check_guidance(config: RouterConfig, checker: GrammarChecker) -> bool:
    """Start the checker of grammars; return whether this model's tokens can be guided."""
    if not config.supports_grammars:
        return False
    reason = await checker.start()
    if reason is None:
        return True
    _log.warning("Guided output is off: %s", reason)
    return False


async def _wait_ready(engine: EngineClient, process: EngineProcess) -> EngineReady:
    ready = asyncio.create_task(engine.wait_ready())
    try:
        while not (await asyncio.wait((ready,), timeout=_WAITING_LOG_S))[0]:
            _log.info("Waiting for shard to be ready...")
        _log.info("kernels: %s", ready.result().kernels)
        return ready.result()
    except EngineDiedError as exc:
        raise EngineDiedError(
            f"The engine ended before it was ready ({await process.wait()})",
            hint="Its last log lines say why; SIGKILL usually means that memory ran out.",
        ) from exc
    finally:
        await _cancel(ready)


async def _done_before(task: asyncio.Task[T], event: asyncio.Event) -> bool:
    """Wait for either; return whether the task is done."""
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
    return task.done()


async def _cancel(task: asyncio.Task[T]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _log_arguments(options: ServeOptions) -> None:
    shown = (
        f"{setting.name}: {_shown(getattr(options, setting.name), setting.is_secret)}"
        for setting in SETTINGS
    )
    _log.info("Args { %s }", ", ".join(shown))


def _shown(value: object, is_secret: bool) -> str:
    if is_secret and value is not None:
        return "***"
    return _USER_OF_URL.sub("//***@", repr(value))
