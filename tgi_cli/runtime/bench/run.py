"""One invocation of `tgi bench`: preflight, stages, numbers, files, exit code.

    options ─► probe ─► inputs ─► (plan ─► workers ─► record ─► numbers) per stage ─► outputs

Whatever ends a run early, what was measured until then is kept and said. Spec: bench.md sections 6,
8, 13 and 14.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tgi_cli import __version__
from tgi_cli.errors import StartError, UsageError
from tgi_cli.runtime.bench.aggregate import aggregate
from tgi_cli.runtime.bench.calibration import read_calibration
from tgi_cli.runtime.bench.codec import Codec, LocalCodec
from tgi_cli.runtime.bench.dry_run import describe_plan
from tgi_cli.runtime.bench.exit_codes import INTERNAL, INTERRUPTED, OK, exit_code
from tgi_cli.runtime.bench.facts import client_facts, is_on_small_host, num_cores
from tgi_cli.runtime.bench.live import LiveState
from tgi_cli.runtime.bench.live_counters import LiveView
from tgi_cli.runtime.bench.loads import concurrency_stage, rate_stage, stage_specs
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.messages import SetUp
from tgi_cli.runtime.bench.outputs import Outputs, default_folder, hdr_of
from tgi_cli.runtime.bench.plan import StagePlanner
from tgi_cli.runtime.bench.pool import WorkerDied, WorkerPool
from tgi_cli.runtime.bench.preparation import (
    body_options,
    num_workers,
    stop_rules,
    timeouts,
    transport_options,
)
from tgi_cli.runtime.bench.probe import Probe
from tgi_cli.runtime.bench.protocols import PROTOCOLS
from tgi_cli.runtime.bench.records import StageRecord
from tgi_cli.runtime.bench.remote_codec import RemoteCodec
from tgi_cli.runtime.bench.report.live import make_live_view
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.result import Result, Stage, Sweep
from tgi_cli.runtime.bench.scrape import Scraper
from tgi_cli.runtime.bench.screen import BenchScreen
from tgi_cli.runtime.bench.slo import Slo, judge_slos, parse_slo
from tgi_cli.runtime.bench.sources import open_source
from tgi_cli.runtime.bench.stage_plan import ReadyPlan, first_count
from tgi_cli.runtime.bench.stage_run import StageRunner
from tgi_cli.runtime.bench.stages import PromptInput, StageSpec
from tgi_cli.runtime.bench.sweep import Found, NextStage, Rung, next_step
from tgi_cli.runtime.bench.transport import TransportOptions
from tgi_cli.runtime.bench.window import Interrupts
from tgi_cli.runtime.config.bench import BenchOptions, redacted_argv, run_toml, shown_options
from tgi_cli.runtime.text.tokenizer import Tokenizer

_SHOWN_S = 0.25
_OFFSET_TEXTS = ("hello", "Count from one to ten, then say what the weather is like today.")

LoadTokenizer = Callable[[str, bool], Tokenizer]
"""Return the tokenizer of a name; the switch allows to fetch it. Raises `StartError`."""


class BenchRun:
    """The state of a run."""

    def __init__(
        self,
        options: BenchOptions,
        argv: Sequence[str],
        load_tokenizer: LoadTokenizer,
        view: LiveView,
        screen: BenchScreen,
    ) -> None:
        """Check what can be checked without the endpoint. Raises `UsageError`."""
        self._options = options
        self._argv = argv
        self._load_tokenizer = load_tokenizer
        self._view = view
        self._screen = screen
        self._slos = read_slos(options)
        self._seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
        self._id = secrets.token_hex(8)
        self._origin = time.perf_counter_ns()
        self._started = datetime.now(UTC)
        self._interrupts = Interrupts()
        self._is_measuring = False
        self._stages: list[Stage] = []
        self._stops: list[StageRecord] = []  # without their requests
        self._sweep = Sweep()
        self._is_client_limited = False
        self._num_stages: int | None = None
        self._shown_at = 0.0
        self._outputs: Outputs | None = None
        self._is_incomplete = False  # something could not be written
        self._calibration = read_calibration()

    async def run(self) -> int:
        """Run all of it; return the exit code. Raises `StartError` before the first stage."""
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._work())

        def interrupt() -> None:
            self._interrupts()
            if not self._is_measuring:
                work.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            return await work
        except asyncio.CancelledError:
            self._view.note("Interrupted before anything was measured.")
            return INTERRUPTED
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            self._view.close()

    async def _work(self) -> int:
        options = self._options
        transport = transport_options(options)
        probe = Probe(
            options.url, transport, body_options(options), timeouts(options), options.path
        )
        async with probe:
            protocol = None if options.protocol == "auto" else options.protocol
            endpoint = await probe.find(protocol, forces_length=options.ignore_eos)
            if options.send_token_ids and not endpoint.capabilities.get("token_ids"):
                raise UsageError("--send-token-ids: the endpoint takes no token ids.")
            self._endpoint = endpoint
            if is_on_small_host(endpoint.url):
                self._view.note(
                    f"The server may be on this host, whose {num_cores()} cores it then shares "
                    "with the client: read the verdicts."
                )
            self._codec = await self._find_codec(probe)
            offset = await self._input_offset(probe)
            self._source = await asyncio.to_thread(
                partial(open_source, options, self._codec, offset=offset)
            )
            specs = stage_specs(options)
            self._num_workers = num_workers(
                options,
                specs,
                itl_s=probe.itl_s,
                output_tokens=128.0,
                calibration=self._calibration,
            )
            set_up = SetUp(
                worker=0,
                num_workers=self._num_workers,
                origin=self._origin,
                protocol=endpoint.protocol,
                body=probe.body,
                transport=TransportOptions(
                    **{
                        name: getattr(transport, name)
                        for name in TransportOptions.__struct_fields__
                        if name != "url"
                    },
                    url=probe.route(),
                ),
                timeouts=timeouts(options),
                num_retries_429=options.retry_429,
            )
            self._make_body = PROTOCOLS[endpoint.protocol](probe.body).body
            if options.save:
                self._open_outputs()
            return await self._run_stages(set_up, specs)

    async def _find_codec(self, probe: Probe) -> Codec | None:
        """Return the tokenizer that was named, else the model's, else the server's own."""
        options = self._options
        if options.tokenizer is not None:
            tokenizer = await asyncio.to_thread(self._load_tokenizer, options.tokenizer, True)
            return LocalCodec(tokenizer)
        if self._endpoint.model is not None:
            with contextlib.suppress(StartError):
                return LocalCodec(
                    await asyncio.to_thread(self._load_tokenizer, self._endpoint.model, False)
                )
        if await probe.tokenize("a") is not None:
            return RemoteCodec(probe, asyncio.get_running_loop())
        return None

    async def _input_offset(self, probe: Probe) -> int:
        """Return what the server counts beyond the tokenizer's own count: a chat's template."""
        if self._codec is None:
            return 0
        own = await asyncio.to_thread(
            partial(self._codec.encode, _OFFSET_TEXTS, add_special_tokens=True)
        )
        offsets = []
        for text, ids in zip(_OFFSET_TEXTS, own, strict=True):
            counted = await probe.num_input_tokens(PromptInput(text=text))
            if counted is None:
                return 0
            offsets.append(counted - len(ids))
        if self._endpoint.protocol == "chat":
            self._endpoint.template_overhead = offsets[0]
        if offsets[0] != offsets[1]:
            self._view.note(
                "The server counts input tokens in another way than the tokenizer "
                f"({offsets[0]:+d} and {offsets[1]:+d}): inputs won't have exactly the planned "
                "lengths. --tokenizer names the right one."
            )
        return offsets[0]

    def _open_outputs(self) -> None:
        folder = self._options.out or default_folder(
            self._endpoint.model, self._started.astimezone().timetuple()
        )
        try:
            options = dataclasses.replace(self._options, seed=self._seed)
            self._outputs = Outputs(Path(folder), run_toml(options))
        except OSError as exc:
            raise UsageError(f"--out {folder}: {exc.strerror}") from exc

    async def _run_stages(self, set_up: SetUp, specs: list[StageSpec]) -> int:
        options = self._options
        pool = WorkerPool(set_up, self._num_workers)
        runner = StageRunner(
            pool,
            stop_rules(options),
            self._interrupts,
            self._show,
            count_text=self._count_text if self._codec is not None else None,
            counts_all_texts=isinstance(self._codec, LocalCodec),
            saves_text=options.save_text,
        )
        metrics_url = {"auto": options.url.rstrip("/") + "/metrics", "off": None}.get(
            options.metrics_url, options.metrics_url
        )
        self._scraper = Scraper(metrics_url, transport_options(options))
        self._is_measuring = True
        try:
            await pool.start()
            if options.sweep:
                await self._run_sweep(runner)
            else:
                self._num_stages = len(specs) * options.num_runs
                for repeat in range(options.num_runs):
                    for spec in specs:
                        if self._must_stop():
                            break
                        await self._run_stage(runner, spec, repeat)
        except WorkerDied as exc:
            self._view.note(f"A client process failed: {exc}")
            self._save(self._result(INTERNAL, f"a client process failed: {exc}"))
            return INTERNAL
        finally:
            await self._scraper.stop()
            await pool.close()
        return self._end()

    def _must_stop(self) -> bool:
        return self._interrupts.count > 0 or any(
            stop.stopped_by == "unreachable" for stop in self._stops
        )

    async def _run_stage(self, runner: StageRunner, spec: StageSpec, repeat: int) -> Stage | None:
        """Run one stage; None if it was interrupted before its window."""
        options = self._options
        if self._stages and options.cooldown:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interrupts.changed.wait(), options.cooldown)
            if self._interrupts.count:
                return None
        nonce = None if options.prefix_cache == "allow" else f"{self._id}.{len(self._stages)}"
        planner = StagePlanner(
            spec,
            self._source,
            self._make_body,
            seed=self._seed,
            nonce=nonce,
            cancel=options.cancel,
            token_ids_codec=self._codec if options.send_token_ids else None,
        )
        count = first_count(spec)
        warmup = await asyncio.to_thread(planner.phase, "warmup", count)
        plan = await asyncio.to_thread(planner.phase, "measure", count)
        if options.prefix_cache == "prime":
            primers = await asyncio.to_thread(planner.primers)
            await runner.send_all(spec, ReadyPlan(primers))
        await runner.warm_up(spec, warmup)
        if self._interrupts.count:
            return None
        before = await self._scraper.read()
        self._scraper.start()
        record = await runner.measure(spec, plan, repeat)
        record.metrics_series = await self._scraper.stop()
        record.metrics_before, record.metrics_after = before, await self._scraper.read()
        return await self._take(record, spec)

    async def _take(self, record: StageRecord, spec: StageSpec) -> Stage:
        limits: dict[str, float] = {**dict(self._options.goodput)}
        stage = await asyncio.to_thread(measure_stage, record, spec, limits)
        stage.hdr = await asyncio.to_thread(hdr_of, record)
        self._stages.append(stage)
        if self._outputs is not None:
            wall_s = self._started.timestamp()
            try:
                await asyncio.to_thread(self._outputs.add_stage, record, stage, wall_s)
            except OSError as exc:
                self._say_unwritten(exc)
        record.requests, record.samples = [], []
        self._stops.append(record)
        code, reason = self._exit_code()
        await asyncio.to_thread(self._save, self._result(code, reason))
        return stage

    async def _run_sweep(self, runner: StageRunner) -> None:
        rungs: list[Rung] = []
        while not self._must_stop():
            step = next_step(rungs, has_slo=bool(self._slos))
            if isinstance(step, Found):
                self._sweep = Sweep(
                    sat_req_s=step.sat_req_s, slo_req_s=step.slo_req_s, knee=step.knee
                )
                self._is_client_limited = step.is_client_limited
                return
            spec = self._spec_of(step)
            stage = await self._run_stage(runner, spec, 0)
            if stage is not None:
                rungs.append(self._rung(stage, step))

    def _spec_of(self, step: NextStage) -> StageSpec:
        if step.is_closed_loop:
            return concurrency_stage(self._options, int(step.value))
        return rate_stage(self._options, step.value)

    def _rung(self, stage: Stage, step: NextStage) -> Rung:
        rates = stage.throughput.all
        interval = rates.ci95.get("out_tok_s")
        low_high = None
        if interval is not None and all(isinstance(bound, float) for bound in interval):
            low_high = (float(interval[0] or 0), float(interval[1] or 0))
        counts = stage.counts
        num_bad = counts.failed + counts.unfinished + counts.dropped
        outcomes = judge_slos(self._slos, [stage], strict=self._options.strict)
        return Rung(
            is_closed_loop=step.is_closed_loop,
            value=step.value,
            out_tok_s=_real(rates.out_tok_s),
            out_tok_s_ci95=low_high,
            req_s=_real(rates.req_s),
            error_rate=num_bad / max(counts.planned, 1),
            is_stable=stage.is_stable is not False,
            is_valid=stage.verdict != "invalid",
            meets_slo=all(outcome.passed for outcome in outcomes) if self._slos else None,
        )

    def _count_text(self, text: str) -> int:
        assert self._codec is not None
        return len(self._codec.encode([text], add_special_tokens=False)[0])

    def _show(self, state: LiveState, spec: StageSpec, phase: str, left_s: float | None) -> None:
        now = time.monotonic()
        if now - self._shown_at < _SHOWN_S:
            return
        self._shown_at = now
        index = len(self._stages)
        self._view.show(
            state.counters(spec.key, index, self._num_stages, phase, left_s, spec.num_requests)
        )

    def _exit_code(self) -> tuple[int, str | None]:
        return exit_code(
            self._stages,
            self._stops,
            judge_slos(self._slos, self._stages, strict=self._options.strict),
            is_interrupted=self._interrupts.count > 0,
            requires_output_length=self._options.require_output_length,
            is_client_limited=self._is_client_limited,
        )

    def _result(self, code: int, reason: str | None) -> Result:
        return Result(
            id=self._id,
            started=self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            tgi_version=__version__,
            argv=redacted_argv(self._argv),
            config=shown_options(self._options),
            meta=dict(self._options.meta),
            seed=self._seed,
            endpoint=self._endpoint,
            client=client_facts(self._num_workers, self._calibration),
            stages=self._stages,
            aggregate=aggregate(self._stages),
            sweep=self._sweep,
            slo=judge_slos(self._slos, self._stages, strict=self._options.strict),
            exit_code=code,
            exit_reason=reason,
        )

    def _save(self, result: Result) -> None:
        if self._outputs is None:
            return
        try:
            self._outputs.write(result)
        except OSError as exc:
            self._say_unwritten(exc)

    def _say_unwritten(self, error: OSError) -> None:
        """Say once that the disk is full or gone; what fits is still tried, stage by stage."""
        assert self._outputs is not None
        if not self._is_incomplete:
            self._view.note(f"Not written to {self._outputs.folder}: {error.strerror}")
        self._is_incomplete = True

    def _end(self) -> int:
        code, reason = self._exit_code()
        result = self._result(code, reason)
        self._save(result)
        self._view.close()
        if self._stages:
            has_colour = self._options.color and self._screen.is_terminal
            self._screen.report(render(result, is_ascii=self._options.ascii, has_colour=has_colour))
        if self._outputs is not None:
            self._view.note(f"Results: {self._outputs.folder}/")
        if self._is_incomplete and code == OK:
            code, reason = INTERNAL, "not all results could be written"
        if reason is not None:  # also with --quiet, which is about the view
            self._screen.say(f"exit {code}: {reason}")
        return code


def read_slos(options: BenchOptions) -> list[Slo]:
    """Return the limits of `--slo`. Raises `UsageError`."""
    try:
        return [parse_slo(text, has_goodput=bool(options.goodput)) for text in options.slo]
    except ValueError as exc:
        raise UsageError(f"--slo: {exc}") from exc


def _real(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def run_bench(
    options: BenchOptions,
    argv: Sequence[str],
    load_tokenizer: LoadTokenizer,
    screen: BenchScreen,
) -> int:
    """Run `tgi bench`; return the exit code. Raises `StartError`."""
    if options.dry_run:
        screen.report(describe_plan(options))
        return OK
    view = make_live_view(
        is_quiet=options.quiet,
        is_json=options.progress == "json",
        is_ascii=options.ascii,
        has_colour=options.color,
    )
    return asyncio.run(BenchRun(options, argv, load_tokenizer, view, screen).run())
