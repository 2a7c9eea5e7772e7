"""One invocation of `tgi bench`: preflight, stages, numbers, files, exit code.

    options ─► preflight ─► (plan ─► workers ─► record ─► numbers) per stage ─► results

Spec: bench.md sections 6, 8 and 14.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence

import msgspec

from tgi_cli.errors import UnreachableError, UsageError
from tgi_cli.runtime.bench.codec import LocalCodec
from tgi_cli.runtime.bench.dry_run import describe_plan
from tgi_cli.runtime.bench.exit_codes import INTERNAL, INTERRUPTED, OK
from tgi_cli.runtime.bench.live import LiveState
from tgi_cli.runtime.bench.live_counters import LiveView
from tgi_cli.runtime.bench.loads import concurrency_stage, rate_stage, stage_specs
from tgi_cli.runtime.bench.messages import SetUp
from tgi_cli.runtime.bench.plan import StagePlanner
from tgi_cli.runtime.bench.pool import WorkerDied, WorkerPool
from tgi_cli.runtime.bench.preflight import LoadTokenizer, Preflight, look
from tgi_cli.runtime.bench.preparation import (
    body_options,
    num_workers,
    stop_rules,
    timeouts,
    transport_options,
)
from tgi_cli.runtime.bench.probe import Probe
from tgi_cli.runtime.bench.protocols import PROTOCOLS
from tgi_cli.runtime.bench.report.live import make_live_view
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.result import Stage, Sweep
from tgi_cli.runtime.bench.run_results import RunResults
from tgi_cli.runtime.bench.scrape import Scraper
from tgi_cli.runtime.bench.screen import BenchScreen
from tgi_cli.runtime.bench.slo import Slo, parse_slo
from tgi_cli.runtime.bench.stage_plan import ReadyPlan, first_count
from tgi_cli.runtime.bench.stage_run import StageRunner
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.bench.sweep import Found, NextStage, Rung, next_step, rung_of
from tgi_cli.runtime.bench.window import Interrupts
from tgi_cli.runtime.config.bench import BenchOptions

_SHOWN_S = 0.25


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
        self._load_tokenizer = load_tokenizer
        self._view = view
        self._screen = screen
        self._slos = read_slos(options)
        self._results = RunResults(options, argv, self._slos, view.note)
        self._origin = time.perf_counter_ns()
        self._interrupts = Interrupts()
        self._is_measuring = False
        self._num_stages: int | None = None
        self._shown_at = 0.0

    async def run(self) -> int:
        """Run all of it; return the exit code. Raises `StartError` before the first stage."""
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._work())

        def interrupt() -> None:
            self._interrupts()
            self._results.is_interrupted = True
            if not self._is_measuring:
                work.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            return await work
        except asyncio.CancelledError:
            self._view.note("Interrupted before anything was measured.")
            self._results.open()
            self._results.save(INTERRUPTED, "interrupted")
            return INTERRUPTED
        except UnreachableError as exc:
            if self._options.out is not None:  # a folder that was asked for says why it is empty
                self._results.open()
                self._results.save(exc.exit_code, exc.message)
            raise
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            self._view.close()

    async def _work(self) -> int:
        options, results = self._options, self._results
        specs = stage_specs(options)
        transport = transport_options(options)
        probe = Probe(
            options.url, transport, body_options(options), timeouts(options), options.path
        )
        async with probe:
            found = await look(options, probe, self._load_tokenizer, self._view.note)
            results.endpoint = found.endpoint
            results.num_workers = await asyncio.to_thread(
                num_workers, options, specs, found.source, probe.itl_s, results.calibration
            )
            protocol = found.endpoint.protocol
            assert protocol is not None, found.endpoint
            set_up = SetUp(
                worker=0,
                num_workers=results.num_workers,
                origin=self._origin,
                protocol=protocol,
                body=probe.body,
                transport=msgspec.structs.replace(transport, url=probe.route()),
                timeouts=timeouts(options),
                num_retries_429=options.retry_429,
            )
            results.open()
            self._found = found
            self._make_body = PROTOCOLS[protocol](probe.body).body
            return await self._run_stages(set_up, specs, found)

    async def _run_stages(self, set_up: SetUp, specs: list[StageSpec], found: Preflight) -> int:
        options, results = self._options, self._results
        pool = WorkerPool(set_up, results.num_workers)
        runner = StageRunner(
            pool,
            stop_rules(options),
            self._interrupts,
            self._show,
            count_text=self._count_text if found.codec is not None else None,
            counts_all_texts=isinstance(found.codec, LocalCodec),
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
            results.save(INTERNAL, f"a client process failed: {exc}")
            return INTERNAL
        finally:
            await self._scraper.stop()
            await pool.close()
        return self._end()

    def _must_stop(self) -> bool:
        return self._interrupts.count > 0 or self._results.is_unreachable

    async def _run_stage(self, runner: StageRunner, spec: StageSpec, repeat: int) -> Stage | None:
        """Run one stage; None if it was interrupted before its window."""
        options, results = self._options, self._results
        if results.stages and options.cooldown:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interrupts.changed.wait(), options.cooldown)
            if self._interrupts.count:
                return None
        allows_hits = options.prefix_cache == "allow"
        planner = StagePlanner(
            spec,
            self._found.source,
            self._make_body,
            seed=results.seed,
            nonce=None if allows_hits else f"{results.id}.{len(results.stages)}",
            cancel=options.cancel,
            token_ids_codec=self._found.codec if options.send_token_ids else None,
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
        return await results.take(record, spec)

    async def _run_sweep(self, runner: StageRunner) -> None:
        results = self._results
        rungs: list[Rung] = []
        while not self._must_stop():
            step = next_step(rungs, has_slo=bool(self._slos))
            if isinstance(step, Found):
                results.sweep = Sweep(
                    sat_req_s=step.sat_req_s, slo_req_s=step.slo_req_s, knee=step.knee
                )
                results.is_client_limited = step.is_client_limited
                return
            stage = await self._run_stage(runner, self._spec_of(step), 0)
            if stage is not None:
                outcomes = results.judged([stage])
                meets_slo = all(each.passed for each in outcomes) if self._slos else None
                rungs.append(rung_of(stage, step, meets_slo=meets_slo))

    def _spec_of(self, step: NextStage) -> StageSpec:
        if step.is_closed_loop:
            return concurrency_stage(self._options, int(step.value))
        return rate_stage(self._options, step.value)

    def _count_text(self, text: str) -> int:
        codec = self._found.codec
        assert codec is not None
        return len(codec.encode([text], add_special_tokens=False)[0])

    def _show(self, state: LiveState, spec: StageSpec, phase: str, left_s: float | None) -> None:
        now = time.monotonic()
        if now - self._shown_at < _SHOWN_S:
            return
        self._shown_at = now
        index = len(self._results.stages)
        self._view.show(
            state.counters(spec.key, index, self._num_stages, phase, left_s, spec.num_requests)
        )

    def _end(self) -> int:
        results = self._results
        code, reason = results.exit_code()
        results.save(code, reason)
        self._view.close()
        if results.stages:
            has_colour = self._options.color and self._screen.is_terminal
            report = render(
                results.result(code, reason), is_ascii=self._options.ascii, has_colour=has_colour
            )
            self._screen.report(report)
        if results.folder is not None:
            self._view.note(f"Results: {results.folder}/")
        if results.unwritten is not None and code == OK:
            code, reason = INTERNAL, results.unwritten
        elif results.unwritten is not None and self._options.quiet:
            self._screen.say(results.unwritten)  # the view has kept it to itself
        if reason is not None:  # also with --quiet, which is about the view
            self._screen.say(f"exit {code}: {reason}")
        return code


def read_slos(options: BenchOptions) -> list[Slo]:
    """Return the limits of `--slo`. Raises `UsageError`."""
    try:
        return [parse_slo(text, has_goodput=bool(options.goodput)) for text in options.slo]
    except ValueError as exc:
        raise UsageError(f"--slo: {exc}") from exc


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
