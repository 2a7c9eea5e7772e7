"""What `tgi quantize` shows: a bar on a terminal, lines in a log, objects for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class QuantizeLines:
    """A line for each layer on stderr; the report on stdout."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def say(self, text: str) -> None:
        print(text, file=self._err, flush=True)

    def step(self, name: str) -> None: ...

    def advance(self, num_done: int, total: int, left_s: float) -> None:
        self.say(f"layer {num_done} of {total} is done, {_left(left_s)}")

    def report(self, text: str, as_json: bytes) -> None:
        print(text, file=self._out, flush=True)

    def close(self) -> None: ...


class QuantizeObjects(QuantizeLines):
    """`--json-output`: one object a line, the report the only one on stdout."""

    def say(self, text: str) -> None:
        print(json.dumps({"message": text}), file=self._err, flush=True)

    def advance(self, num_done: int, total: int, left_s: float) -> None:
        fields = {"layers_done": num_done, "layers": total, "left_s": round(left_s, 1)}
        print(json.dumps(fields), file=self._err, flush=True)

    def report(self, text: str, as_json: bytes) -> None:
        print(json.dumps(json.loads(as_json)), file=self._out, flush=True)


class QuantizeBar(QuantizeLines):
    """A bar with the time that is left; lines above it."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        super().__init__(out, err)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        self.close()  # what follows the layers has no bar
        super().say(text)

    def step(self, name: str) -> None:
        progress, task = self._bar()
        progress.update(task, description=name)

    def advance(self, num_done: int, total: int, left_s: float) -> None:
        progress, task = self._bar()
        progress.update(task, completed=num_done, total=total, left=_left(left_s))

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def _bar(self) -> tuple[Progress, TaskID]:
        # Imported here: a run without a terminal, and `tgi --help`, have no use for it.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if self._progress is None or self._task is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                console=Console(file=self._err),
                transient=True,
            )
            self._task = self._progress.add_task("", total=None, left="")
            self._progress.start()
        return self._progress, self._task


class QuietLines(QuantizeLines):
    """`--log-level warning`: the report and nothing else."""

    def say(self, text: str) -> None: ...

    def advance(self, num_done: int, total: int, left_s: float) -> None: ...


@contextmanager
def quantize_screen(*, is_json: bool, is_quiet: bool) -> Iterator[QuantizeLines]:
    """Give the screen for where stderr goes, and leave a clean terminal behind."""
    kind: type[QuantizeLines] = QuantizeBar if sys.stderr.isatty() else QuantizeLines
    if is_json:
        kind = QuantizeObjects
    elif is_quiet:
        kind = QuietLines
    screen = kind(sys.stdout, sys.stderr)
    try:
        yield screen
    finally:
        screen.close()


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return f"{clock} left"
