"""`tgi quantize` from start to end.

    locate the model ─► decide ─► plan, refuse what can't fit ─► solve layer by layer
        ─► put the checkpoint together ─► load it and measure ─► refuse or give it its name

All that can be refused is refused before the first layer. The result has its name only when it is
whole, on the disk and within its bounds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from tgi_cli import __version__
from tgi_cli.errors import ArgumentError, QualityError, UnsupportedModelError
from tgi_cli.runtime.config.facts import HardwareFacts
from tgi_cli.runtime.config.quantize import QuantizeOptions, QuantizeRecipe, decide
from tgi_cli.runtime.config.quantize.options import DEFAULT_DAMP
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.hub.model_path import local_path
from tgi_cli.runtime.hub.push import check_push, push_folder
from tgi_cli.runtime.hub.safetensors_writer import write_file
from tgi_cli.runtime.platforms import cpu
from tgi_cli.runtime.quantize.backends import check_backend
from tgi_cli.runtime.quantize.calibrate import Calibration, calibrate, check_length, held_out
from tgi_cli.runtime.quantize.checkpoint import write_checkpoint
from tgi_cli.runtime.quantize.evaluate import EvaluationText, compare
from tgi_cli.runtime.quantize.forward import LayerForward
from tgi_cli.runtime.quantize.library_checkpoint import write_library_checkpoint
from tgi_cli.runtime.quantize.methods import layer_solver
from tgi_cli.runtime.quantize.model_card import model_card
from tgi_cli.runtime.quantize.output_folder import check_output, disk_errors
from tgi_cli.runtime.quantize.plan import (
    check_disk,
    check_memory,
    estimate_s,
    grid_of,
    make_plan,
)
from tgi_cli.runtime.quantize.progress import QuantizeScreen
from tgi_cli.runtime.quantize.report import Report, Side, check_bounds
from tgi_cli.runtime.quantize.report_text import describe_recipe, plan_text, report_text
from tgi_cli.runtime.quantize.solve_layers import LayerLoop, MakeSolver
from tgi_cli.runtime.quantize.solver import LayerSolver
from tgi_cli.runtime.quantize.source import Source
from tgi_cli.runtime.quantize.work_folder import (
    LayerRecord,
    State,
    WorkFolder,
    open_work,
    read_state,
)
from tgi_cli.runtime.text.tokenizer import Tokenizer

REPORT_NAME = "report.json"
_CARD_NAME = "README.md"


def quantize(options: QuantizeOptions, hardware: HardwareFacts, screen: QuantizeScreen) -> int:
    """Quantise a model into a folder; return the exit code. Raises `StartError`."""
    recipe = decide(options)
    assert options.model is not None, options
    assert options.output is not None, options
    output = check_output(options.model, options.output)
    _check_device(recipe.device)
    if recipe.backend != "own":
        check_backend(recipe.backend)
    located = locate_model(options.model, revision=options.revision)
    _check_plain(located)
    if recipe.is_calibrated or options.evaluation:
        check_length(recipe.sequence_length, located.config)
    run = _Run(options, recipe, output, Source(located), hardware, screen)
    if options.dry_run:
        run.show_plan()
    else:
        run.execute()
    return 0


class _Run:
    def __init__(
        self,
        options: QuantizeOptions,
        recipe: QuantizeRecipe,
        output: Path,
        source: Source,
        hardware: HardwareFacts,
        screen: QuantizeScreen,
    ) -> None:
        self._options = options
        self._recipe = recipe
        self._output = output
        self._source = source
        self._hardware = hardware
        self._screen = screen
        num_evaluated = options.evaluation_samples * recipe.sequence_length
        self._plan = make_plan(
            source,
            recipe,
            num_shard=options.num_shard,
            num_evaluated_tokens=num_evaluated if options.evaluation else 0,
        )

    def show_plan(self) -> None:
        cpu.set_num_threads(self._hardware.num_cores)
        text, json = plan_text(self._recipe, self._plan, estimate_s(self._plan))
        self._screen.report(text, json)
        self._check_room()

    def execute(self) -> None:
        self._check_room()
        earlier = read_state(self._output) if self._options.resume else None
        num_threads = self._hardware.num_cores if earlier is None else earlier.num_threads
        cpu.set_num_threads(num_threads)
        located = self._source.located
        tokenizer = Tokenizer(located.text)
        calibrated = calibrate(tokenizer, self._recipe)
        text = None
        if self._options.evaluation:
            text = held_out(
                tokenizer, self._options.evaluation_samples, self._recipe.sequence_length
            )
        state = self._state(calibrated, num_threads)
        if self._options.push_to_hub is not None:
            check_push(self._options.push_to_hub)
        with disk_errors(self._output, can_resume=self._recipe.backend == "own"):
            work = open_work(self._output, state, resumes=self._options.resume)
            try:
                self._make(work, state, calibrated, text)
            finally:
                work.close()

    def _check_room(self) -> None:
        available = self._hardware.available_memory_bytes
        check_memory(self._plan, self._options.max_memory, available)
        check_disk(self._plan, self._output)

    def _make(
        self,
        work: WorkFolder,
        state: State,
        calibrated: Calibration | None,
        text: EvaluationText | None,
    ) -> None:
        folder, records = self._write(work, calibrated)
        report = self._report(folder, records, state, calibrated, text)
        report_json = report.json()
        self._screen.report(report_text(report), report_json)
        if report.quality is not None:
            try:
                check_bounds(
                    report.quality,
                    report.rounding,
                    max_kl=self._options.max_kl,
                    max_ppl_increase=self._options.max_ppl_increase,
                )
            except QualityError:
                work.withdraw(REPORT_NAME, report_json)
                raise
        write_file(folder / REPORT_NAME, report_json)
        write_file(folder / _CARD_NAME, model_card(report).encode())
        work.publish()
        self._screen.say(f"written: {self._output}")
        if self._options.push_to_hub is not None:
            message = f"{describe_recipe(report.recipe)}, by tgi {__version__}"
            address = push_folder(self._output, self._options.push_to_hub, message)
            self._screen.say(f"uploaded: {address}")

    def _write(
        self, work: WorkFolder, calibrated: Calibration | None
    ) -> tuple[Path, list[LayerRecord]]:
        """Return the folder with the checkpoint, and what is known of its layers."""
        windows = None if calibrated is None else calibrated.windows
        if self._recipe.backend != "own":
            assert windows is not None, self._recipe
            self._screen.say(f"{self._recipe.backend} is at work")
            located = self._source.located
            return write_library_checkpoint(located, self._recipe, windows.tolist(), work), []
        loop = LayerLoop(
            self._source, self._recipe, work, windows, make_solver(self._recipe), self._screen
        )
        records = loop.run()
        self._screen.say("putting the checkpoint together")
        return write_checkpoint(self._source, self._recipe, work), records

    def _state(self, calibrated: Calibration | None, num_threads: int) -> State:
        device = self._recipe.device
        if device == "cpu":
            name = f"cpu, {torch.backends.cpu.get_cpu_capability()}"
        else:
            name = f"{device}, {torch.cuda.get_device_name(device)}"
        return State(
            options=_recipe_fields(self._recipe),
            source=self._source.files(),
            calibration_sha256=None if calibrated is None else calibrated.sha256,
            num_threads=num_threads,
            device=name,
            versions={"tgi-cli": __version__, "torch": str(torch.__version__)},
        )

    def _report(
        self,
        folder: Path,
        records: list[LayerRecord],
        state: State,
        calibrated: Calibration | None,
        text: EvaluationText | None,
    ) -> Report:
        located = self._source.located
        written = locate_model(str(folder))
        compared = None
        if text is not None:
            grid = None if self._recipe.method == "rtn" else grid_of(self._recipe)
            compared = compare(located, written, text, self._screen.say, grid=grid)
        before = Side(file_bytes=located.weights.num_bytes)
        after = Side(file_bytes=written.weights.num_bytes)
        return Report(
            tgi_version=__version__,
            model=public_name(located.model_id),
            source_sha256={file.name: file.sha256 for file in state.source},
            recipe=state.options,
            calibration=None if calibrated is None else calibrated.name,
            num_calibration_tokens=0 if calibrated is None else calibrated.windows.numel(),
            num_threads=state.num_threads,
            device=state.device,
            evaluation_text=None if text is None else text.name,
            quality=None if compared is None else compared.quality,
            rounding=None if compared is None else compared.rounding,
            before=before if compared is None else compared.before,
            after=after if compared is None else compared.after,
            layers=records,
        )


def make_solver(recipe: QuantizeRecipe) -> MakeSolver:
    """Return how the recipe's solver is made for a layer."""
    grid, damping = grid_of(recipe), recipe.damp or DEFAULT_DAMP

    def make(forward: LayerForward) -> LayerSolver:
        return layer_solver(
            recipe.method, grid, forward, damping=damping, true_order=recipe.desc_act
        )

    return make


def public_name(model_id: str) -> str:
    """Return a model's name for a report that may be published: of a path only the last part."""
    path = local_path(model_id)
    return model_id if path is None else path.absolute().name


def _recipe_fields(recipe: QuantizeRecipe) -> dict[str, str | int | float | bool | None]:
    fields = dataclasses.asdict(recipe)
    if recipe.calibration is not None:
        fields["calibration"] = public_name(recipe.calibration)
    return fields


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    _, _, number = device.partition(":")
    num_found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= num_found:
        raise ArgumentError(f"--device {device}: there is no such GPU; torch sees {num_found}.")


def _check_plain(located: LocatedModel) -> None:
    if located.weights.quantization is not None:
        raise UnsupportedModelError(
            f"{public_name(located.model_id)} is quantised already.",
            hint="Quantise the original it was made from.",
        )
