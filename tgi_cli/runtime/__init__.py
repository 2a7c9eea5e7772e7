"""The runtime's face: what a command may ask for. Each job is loaded when it is asked for."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import FrameType

    from tgi_cli.runtime.bench.screen import BenchScreen
    from tgi_cli.runtime.config.bench import BenchOptions
    from tgi_cli.runtime.config.download import DownloadOptions
    from tgi_cli.runtime.config.mock import MockOptions
    from tgi_cli.runtime.config.options import ServeOptions
    from tgi_cli.runtime.config.quantize import QuantizeOptions
    from tgi_cli.runtime.config.resolved import LogConfig
    from tgi_cli.runtime.hub.download.run import Screen as DownloadScreen
    from tgi_cli.runtime.quantize.progress import QuantizeScreen
    from tgi_cli.runtime.serving.screen import Screen


def serve(options: ServeOptions, screen: Screen, warnings: tuple[str, ...] = ()) -> int:
    """Serve a model until told to stop; return the exit code. Raises `StartError`."""
    # Being told to stop is no failure, also while the imports below still run.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_now)

    from tgi_cli.runtime.serving.launch import serve as launch

    return launch(options, screen, warnings)


def health(argv: Sequence[str]) -> int:
    """Run `tgi health` with these arguments; return the exit code."""
    from tgi_cli.runtime.health import main

    return main(argv)


def download(options: DownloadOptions, log: LogConfig, screen: DownloadScreen) -> int:
    """Put a model's files on this disk; return the exit code, having shown what came of it."""
    # As Ctrl-C: in a container, where this is process 1, SIGTERM would do nothing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from tgi_cli.runtime.hub.download.run import run_download

    return run_download(options, log, screen)


def bench_mock(options: MockOptions, listening: Callable[[str], None]) -> int:
    """Serve text without a model until told to stop; return the exit code. Raises `StartError`."""
    from tgi_cli.runtime.bench.mock.server import serve_mock

    return serve_mock(options, listening)


def run_bench(options: BenchOptions, argv: Sequence[str], screen: BenchScreen) -> int:
    """Put load on an endpoint; return the exit code. Raises `StartError`."""
    from tgi_cli.runtime.bench.run import run_bench as run
    from tgi_cli.runtime.hub.tokenizer_only import read_tokenizer
    from tgi_cli.runtime.text.tokenizer import Tokenizer

    def load_tokenizer(name: str, may_fetch: bool) -> Tokenizer:
        return Tokenizer(read_tokenizer(name, may_fetch=may_fetch))

    return run(options, argv, load_tokenizer, screen)


def bench_calibrate(duration_s: float, max_workers: int | None, screen: BenchScreen) -> int:
    """Find and store what a client process manages; return the exit code. Raises `StartError`."""
    from tgi_cli.runtime.bench.calibrate import calibrate

    return calibrate(duration_s, max_workers, screen)


def bench_report(path: Path, form: str, *, is_ascii: bool, has_colour: bool) -> str:
    """Return the report of a stored result. Raises `StartError`."""
    from tgi_cli.runtime.bench.report.formats import FORMATS, render_as
    from tgi_cli.runtime.bench.result_file import read_result

    found = next(known for known in FORMATS if known == form)
    return render_as(read_result(path), found, is_ascii=is_ascii, has_colour=has_colour)


def bench_compare(
    paths: Sequence[Path], form: str, *, threshold: float, fails_on_worse: bool
) -> tuple[str, int, str | None]:
    """Hold results against the first; return the text, the exit code and its reason.

    Raises:
        StartError: one that can't be read.
    """
    from tgi_cli.runtime.bench.compare import compare, exit_code, load_run
    from tgi_cli.runtime.bench.report.comparison import COMPARISON_FORMATS, render_comparisons

    found = next(known for known in COMPARISON_FORMATS if known == form)
    first, *others = (load_run(path) for path in paths)
    comparisons = [compare(first, other, threshold=threshold) for other in others]
    code, reason = exit_code(comparisons, fails_on_worse=fails_on_worse)
    return render_comparisons(comparisons, found), code, reason


def quantize_model(options: QuantizeOptions, screen: QuantizeScreen) -> int:
    """Quantise a model, or measure one; return the exit code. Raises `StartError`."""
    # As Ctrl-C: a library's process must not outlive this one, and see `download`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from tgi_cli.runtime.platforms.cpu import prepare_process
    from tgi_cli.runtime.serving.hardware import read_hardware

    hardware = read_hardware()
    prepare_process(hardware.num_cores)  # before torch is imported, which is below
    if options.evaluate is not None:
        from tgi_cli.runtime.quantize.evaluate_alone import evaluate

        return evaluate(options, hardware, screen)
    from tgi_cli.runtime.quantize.pipeline import quantize as run

    return run(options, hardware, screen)


def schema() -> str:
    """Return the OpenAPI document of the HTTP interface, in JSON. Needs no model."""
    import msgspec

    from tgi_cli.runtime.router.openapi import openapi_json

    return msgspec.json.format(openapi_json(), indent=2).decode()


def _exit_now(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
