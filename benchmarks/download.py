"""Download speed of `tgi download` beside curl's, from the same local server.

The server sends files with `sendfile`, so that it isn't what is measured. Both sides fetch the same
files to the same disk, in turn: `tgi` with its checks on, curl with as many transfers at a time.
Each round's copy is removed. Medians of the rounds are reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_COMMIT = "c0ffee" + "0" * 34
_MODEL = "somebody/big"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks download", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="of all files together")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; default: the usual place")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        files = _write_model(folder / "hub", args.megabytes * 1_000_000 // args.files, args.files)
        server = _Server(folder / "hub")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        total = sum(path.stat().st_size for path in files)
        seconds: dict[str, list[float]] = {}
        for number in range(args.rounds + 1):
            took = {
                "curl": _curl(server.url, files, folder / "curl", is_hashed=False),
                "tgi --verify size": _tgi(server.url, folder / "home", "size"),
                "curl, sha256sum": _curl(server.url, files, folder / "curl", is_hashed=True),
                "tgi": _tgi(server.url, folder / "home", "sha256"),
            }
            for who, found in took.items():
                if number > 0:  # the first round warms the page cache
                    seconds.setdefault(who, []).append(found)
        curl = statistics.median(seconds["curl"])
        for who, found in seconds.items():
            median = statistics.median(found)
            print(f"{who:18} {total / median / 1e6:8.0f} MB/s  {curl / median:6.1%} of curl")


def _write_model(folder: Path, num_bytes: int, num_files: int) -> list[Path]:
    folder.mkdir(parents=True)
    names = [f"model-{n:05}-of-{num_files:05}.safetensors" for n in range(1, num_files + 1)]
    for name in names:
        header = json.dumps(
            {name: {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}
        ).encode()
        with (folder / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            left = num_bytes
            while left:
                piece = os.urandom(min(left, 1 << 20))
                file.write(piece)
                left -= len(piece)
    return [folder / name for name in names]


def _curl(url: str, files: list[Path], into: Path, *, is_hashed: bool) -> float:
    """Return the seconds that curl takes for all files at once, and sha256sum after it."""
    into.mkdir()
    arguments = ["curl", "--silent", "--fail", "--parallel", "--parallel-max", "8"]
    for path in files:
        arguments += ["--output", str(into / path.name), f"{url}/{path.name}"]
    begin = time.perf_counter()
    subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)  # it draws a table
    if is_hashed:
        sums = [
            subprocess.Popen(["sha256sum", str(into / path.name)], stdout=subprocess.DEVNULL)
            for path in files
        ]
        assert all(process.wait() == 0 for process in sums)
    took = time.perf_counter() - begin
    shutil.rmtree(into)
    return took


def _tgi(url: str, home: Path, check: str) -> float:
    """Return the seconds from the request for the listing to the last file in its place."""
    environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(home)}
    command = ["-c", _TIMED, _MODEL, check]
    done = subprocess.run(
        [sys.executable, *command], env=environment, check=True, capture_output=True, text=True
    )
    shutil.rmtree(home)
    return float(done.stdout)


# Without the start of Python, which is the same for a file of any size.
_TIMED = """
import sys, time
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.obtain import obtain
from tgi_cli.runtime.hub.download.progress import SilentProgress

options = DownloadOptions(model_id=sys.argv[1], check=sys.argv[2], min_free_bytes=0)
begin = time.perf_counter()
obtain(options, SilentProgress(), Stop())
print(time.perf_counter() - begin)
"""


class _Server(ThreadingHTTPServer):
    """A hub with one repository; files are sent by the kernel."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.listing = json.dumps(
            {"id": _MODEL, "sha": _COMMIT, "siblings": [_entry(p) for p in folder.iterdir()]}
        ).encode()


def _entry(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return {
        "rfilename": path.name,
        "size": size,
        "lfs": {"size": size, "sha256": sha256, "pointerSize": 134},
    }


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            self._begin(len(self.server.listing))
            self.wfile.write(self.server.listing)
            return
        path = self.server.folder / self.path.rpartition("/")[2]
        self._begin(path.stat().st_size)
        self.wfile.flush()
        with path.open("rb") as file:
            assert isinstance(self.connection, socket.socket)
            self.connection.sendfile(file)

    def _begin(self, num_bytes: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(num_bytes))
        self.end_headers()
