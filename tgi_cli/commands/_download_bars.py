"""The bars of `tgi download`: one for everything, and below it one for each file under way."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_SPEED_WINDOW_S = 30.0
_TITLES = {"download": "Download", "verify": "Verify", "convert": "Convert"}
_NAME_WIDTH = 40


class Bars:
    """Draws on stderr what several threads tell; the bars go when their phase is over."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._total = TaskID(0)
        self._files: dict[str, TaskID] = {}

    def begin(self, phase: str, num_files: int, num_bytes: int, num_done: int = 0) -> None:
        with self._lock:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
                speed_estimate_period=_SPEED_WINDOW_S,
            )
            title = f"{_TITLES[phase]} {num_files} file(s)"
            self._total = self._progress.add_task(title, total=num_bytes, completed=num_done)
            self._files = {}
            self._progress.start()

    def begin_file(self, name: str, num_bytes: int, num_done: int = 0) -> None:
        shown = name if len(name) <= _NAME_WIDTH else f"…{name[1 - _NAME_WIDTH :]}"
        with self._lock:
            if self._progress is not None:
                self._files[name] = self._progress.add_task(
                    f"  {shown}", total=num_bytes, completed=num_done
                )

    def advance(self, name: str, num_bytes: int) -> None:
        with self._lock:
            if self._progress is not None:
                self._progress.advance(self._total, num_bytes)
                if name in self._files:
                    self._progress.advance(self._files[name], num_bytes)

    def end_file(self, name: str) -> None:
        with self._lock:
            if self._progress is not None and name in self._files:
                self._progress.remove_task(self._files.pop(name))

    def end(self) -> None:
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, style="yellow")
