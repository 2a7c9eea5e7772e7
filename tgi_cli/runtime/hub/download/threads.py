"""Work on several files at a time, in threads that never hold up the end of the process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from tgi_cli.runtime.hub.download.hub_client import Stop, Stopped
from tgi_cli.runtime.hub.download.listing import RemoteFile

_LAST_WRITES_S = 1.0


def run_in_threads(
    work: Callable[[RemoteFile], None],
    files: Sequence[RemoteFile],
    num_threads: int,
    stop: Stop,
) -> None:
    """Call `work` for each file; the first failure, or Ctrl-C, sets `stop` and is raised.

    The threads are daemons: one that hangs on a socket dies with the process.
    """
    waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    for file in files:
        waiting.put(file)
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            while not stop.is_set():
                work(waiting.get_nowait())
        except queue.Empty:
            ended.put(None)
        except BaseException as exc:  # raised again by whoever waits
            ended.put(exc)
        else:
            ended.put(None)

    num_open = min(num_threads, len(files))
    for number in range(num_open):
        threading.Thread(target=run, name=f"download-{number}", daemon=True).start()
    try:
        while num_open:
            failure = ended.get()
            num_open -= 1
            if failure is not None:
                raise failure
        if stop.is_set():
            raise Stopped
    except BaseException:
        stop.set()
        _let_end(ended, num_open)
        raise


def _let_end(ended: queue.SimpleQueue[BaseException | None], num_open: int) -> None:
    """Wait a moment for writes under way, so that no other process meets a growing file."""
    try:
        for _ in range(num_open):
            ended.get(timeout=_LAST_WRITES_S)
    except queue.Empty:
        pass
