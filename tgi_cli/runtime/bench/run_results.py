"""What a run has found so far: kept stage by stage, judged, and written to its folder.

Whatever ends a run early, what was measured until then is there and says why it ended.
Spec: bench.md sections 13 to 15.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tgi_cli import __version__
from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.aggregate import aggregate
from tgi_cli.runtime.bench.calibration import read_calibration
from tgi_cli.runtime.bench.exit_codes import exit_code
from tgi_cli.runtime.bench.facts import client_facts
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.outputs import Outputs, default_folder, hdr_of
from tgi_cli.runtime.bench.records import StageRecord
from tgi_cli.runtime.bench.report import hdr_files
from tgi_cli.runtime.bench.result import Endpoint, Result, SloOutcome, Stage, Sweep
from tgi_cli.runtime.bench.slo import Slo, judge_slos
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.config.bench import BenchOptions, redacted_argv, run_toml, shown_options


class RunResults:
    """The stages of one run and the folder that they are written to, if there is one."""

    def __init__(
        self,
        options: BenchOptions,
        argv: Sequence[str],
        slos: list[Slo],
        note: Callable[[str], None],
    ) -> None:
        self._options = options
        self._argv = argv
        self._slos = slos
        self._note = note
        self.seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
        self.id = secrets.token_hex(8)
        self.calibration = read_calibration()
        self.endpoint = Endpoint(url=options.url.rstrip("/"), model=options.model)
        self.num_workers = 0
        self.stages: list[Stage] = []
        self.sweep = Sweep()
        self.is_client_limited = False
        self.is_interrupted = False
        self.unwritten: str | None = None  # why something could not be written
        self._stops: list[StageRecord] = []  # without their requests
        self._started = datetime.now(UTC)
        self._outputs: Outputs | None = None

    @property
    def folder(self) -> Path | None:
        return None if self._outputs is None else self._outputs.folder

    @property
    def is_unreachable(self) -> bool:
        """Whether a stage was given up because nothing ever answered well."""
        return any(stop.stopped_by == "unreachable" for stop in self._stops)

    def open(self) -> None:
        """Make the folder, unless nothing is to be saved. Raises `UsageError`."""
        if not self._options.save or self._outputs is not None:
            return
        folder = self._options.out or default_folder(
            self.endpoint.model, self._started.astimezone().timetuple()
        )
        try:
            options = dataclasses.replace(self._options, seed=self.seed)
            self._outputs = Outputs(Path(folder), run_toml(options))
        except OSError as exc:
            raise UsageError(f"--out {folder}: {exc.strerror}") from exc
        if not hdr_files.is_available():
            self._note(
                "No HDR histograms are written: that takes the extra `bench` (hdrhistogram)."
            )

    async def take(self, record: StageRecord, spec: StageSpec) -> Stage:
        """Count the numbers of a stage and write all that there is now."""
        limits: dict[str, float] = {**dict(self._options.goodput)}
        stage = await asyncio.to_thread(measure_stage, record, spec, limits)
        stage.hdr = await asyncio.to_thread(hdr_of, record)
        self.stages.append(stage)
        if self._outputs is not None:
            wall_s = self._started.timestamp()
            try:
                await asyncio.to_thread(self._outputs.add_stage, record, stage, wall_s)
            except OSError as exc:
                self._say_unwritten(exc)
        record.requests, record.samples = [], []
        self._stops.append(record)
        await asyncio.to_thread(self.save, *self.exit_code())
        return stage

    def judged(self, stages: Sequence[Stage]) -> list[SloOutcome]:
        """Hold stages against the limits of `--slo`."""
        return judge_slos(self._slos, stages, strict=self._options.strict)

    def exit_code(self) -> tuple[int, str | None]:
        """Return what the exit code would be now, and why."""
        options = self._options
        return exit_code(
            self.stages,
            self._stops,
            self.judged(self.stages),
            # Beyond saturation a sweep's last stages leave requests behind: it looks for that.
            max_errors=None if options.sweep else options.max_errors,
            is_interrupted=self.is_interrupted,
            requires_output_length=options.require_output_length,
            is_client_limited=self.is_client_limited,
        )

    def result(self, code: int, reason: str | None) -> Result:
        """Return all of it as `result.json` has it."""
        return Result(
            id=self.id,
            started=self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            tgi_version=__version__,
            argv=redacted_argv(self._argv),
            config=shown_options(self._options),
            meta=dict(self._options.meta),
            seed=self.seed,
            endpoint=self.endpoint,
            client=client_facts(self.num_workers, self.calibration),
            stages=self.stages,
            aggregate=aggregate(self.stages),
            sweep=self.sweep,
            slo=self.judged(self.stages),
            exit_code=code,
            exit_reason=reason,
        )

    def save(self, code: int, reason: str | None) -> None:
        """Write the result; a disk that is full is said, and the run goes on."""
        if self._outputs is None:
            return
        try:
            self._outputs.write(self.result(code, reason))
        except OSError as exc:
            self._say_unwritten(exc)

    def _say_unwritten(self, error: OSError) -> None:
        """Say once that the disk is full or gone; what fits is still tried, stage by stage."""
        if self.unwritten is None:
            self.unwritten = f"not all results could be written to {self.folder}: {error.strerror}"
            self._note(self.unwritten)
