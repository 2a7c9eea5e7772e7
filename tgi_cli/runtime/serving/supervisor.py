"""An engine's process: start it, watch it, end it.

The engine is named by a string, so that torch loads in the child alone. Its one link to us is a
socket that it inherits: when either side ends, the other reads an end of file (docs/adr/0001).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from tgi_cli.errors import EngineDiedError

ENGINE_MODULES = {
    "native": "tgi_cli.runtime.engine",
    "fake": "tgi_cli.runtime.ipc.fake_engine",
}
_EXIT_TIMEOUT_S = 5.0


class EngineProcess:
    """A running engine. `sock` is our end of its channel; who takes it closes it."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        self._process = process
        self.sock = sock

    @classmethod
    async def start(
        cls, engine: str, num_threads: int, cuda_visible_devices: str | None = None
    ) -> EngineProcess:
        """Start the engine of that name, a key of `ENGINE_MODULES`.

        Raises:
            EngineDiedError: the system didn't let us.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the folder we were started in may be a model's: import nothing from it
                *("-m", ENGINE_MODULES[engine], "--channel-fd", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(num_threads, cuda_visible_devices),
                start_new_session=True,  # Ctrl-C is for us: the engine ends when we say so
            )
        except BaseException as exc:
            ours.close()
            if isinstance(exc, OSError):
                raise EngineDiedError(f"The engine's process can't be started: {exc}") from exc
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> str:
        """Return, in words, how the process ended."""
        return describe_exit(await self._process.wait())

    async def end(self) -> None:
        """Wait a little for the engine to end by itself, then kill it."""
        try:
            async with asyncio.timeout(_EXIT_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def describe_exit(exit_code: int) -> str:
    """Name an exit code or the signal that ended the process."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"signal {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"signal {-exit_code}"


def _environment(num_threads: int, cuda_visible_devices: str | None) -> dict[str, str]:
    """Threads wait passively, and their number is known before OpenMP loads; GPUs are as asked."""
    visible = {} if cuda_visible_devices is None else {"CUDA_VISIBLE_DEVICES": cuda_visible_devices}
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(num_threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",
        **visible,
    }
