"""`tgi serve` as a process of its own, watched through what it prints."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

_TIMEOUT_S = 90.0
_TGI_SERVE = (sys.executable, "-u", "-m", "tgi_cli", "serve")
_LOOPBACK = ("--hostname", "127.0.0.1", "--port", "0", "--prometheus-port", "0")


class Served:
    """A running `tgi serve` on a free port of the loopback address."""

    def __init__(self, *args: str, program: Sequence[str] = _TGI_SERVE, **variables: str) -> None:
        unset = ("PORT", "HOSTNAME", "MODEL_ID", "API_KEY", "LOG_LEVEL")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= variables
        self._process = subprocess.Popen(
            [*program, *_LOOPBACK, *args],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a process group of its own, as a terminal gives it
        )
        self.lines: list[str] = []
        self._arriving: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.family: list[psutil.Process] = []  # whom it had started when it was last asked

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._arriving.put(line.rstrip("\n"))
        self._arriving.put(None)

    def wait_for(self, text: str) -> str:
        """Return the first new line that holds `text`."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            line = self._arriving.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"ended without {text!r}:\n" + "\n".join(self.lines)
            self.lines.append(line)
            if text in line:
                return line

    def wait_ready(self) -> str:
        """Return the URL, once the server listens."""
        url = self.wait_for("Connected").partition("url=")[2]
        self.family = psutil.Process(self._process.pid).children(recursive=True)
        return url

    def wait_started(self) -> None:
        """Return when the engine's process is there, long before it is ready."""
        self.wait_for("Starting shard")
        main = psutil.Process(self._process.pid)
        deadline = time.monotonic() + _TIMEOUT_S
        while not (family := main.children(recursive=True)):  # the log line comes just before
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.family = family

    def engine(self) -> psutil.Process:
        return next(
            process
            for process in self.family
            if any("engine" in word for word in process.cmdline())
        )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def press_ctrl_c(self) -> None:
        """Send SIGINT to its process group, as a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def wait_exit(self) -> int:
        """Return the exit code, and keep everything that was printed."""
        exit_code = self._process.wait(_TIMEOUT_S)
        self._reader.join(_TIMEOUT_S)
        while (line := self._arriving.get(timeout=_TIMEOUT_S)) is not None:
            self.lines.append(line)
        return exit_code

    def survivors(self) -> list[psutil.Process]:
        """Return which of its processes are still there, after a little time to go."""
        _, alive = psutil.wait_procs(self.family, timeout=10)
        return alive

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for process in self.survivors():
            process.kill()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def served(*args: str, program: Sequence[str] = _TGI_SERVE, **variables: str) -> Iterator[Served]:
    """Run `tgi serve` with these arguments and variables; nothing of it outlives the block.

    `program` is what stands before the arguments: another way to start it.
    """
    server = Served(*args, program=program, **variables)
    try:
        yield server
    finally:
        server.kill()
