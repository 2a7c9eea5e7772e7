"""Prove the image without a container engine: `python -m tools.prove_image --work FOLDER`.

Carries out the Dockerfile's steps (`tools/image_root.py`) and starts the image's entry point as the
image's user, with the image's variables and nothing else, in a network of its own that reaches
nobody. Then its health check has to hold, a request to be answered, SIGTERM to end it with 0.
What that can't show is the official Python image itself, and CUDA's wheels.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tools.dockerfile import Stage, chain, command, fact, parse
from tools.image_root import ImageRoots, Root, size_of

_CONTEXT = Path(__file__).resolve().parents[1]
_INSIDE = "--in-own-namespaces"
_CLONE_NEWNET = 0x40000000
_START_S = 300
_STOP_S = 100


def main() -> None:
    if _INSIDE not in sys.argv:
        namespaces = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        words = (sys.executable, "-m", "tools.prove_image", _INSIDE, *sys.argv[1:])
        os.chdir(_CONTEXT)
        os.execvp("unshare", ["unshare", *namespaces, *words])
    asked = _arguments()
    build_args = dict(pair.split("=", 1) for pair in asked.build_arg)
    stages = parse((_CONTEXT / "Dockerfile").read_text(encoding="utf-8"), build_args)
    roots = ImageRoots(stages, _CONTEXT, asked.work.resolve(), build_args, asked.bind)
    root = roots.build(asked.target)
    image = chain(stages, asked.target)
    for layer in root.layers:
        print(f"layer {layer.name}: {_megabytes(size_of(layer))}")
    print(f"image: {_megabytes(root.num_bytes())}")
    _enter_own_network()
    root.variables |= dict(pair.split("=", 1) for pair in asked.env)
    _serve(root, image, asked.arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the roots")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--bind", action="append", type=Path, default=[], help="what the steps see of this machine"
    )
    parser.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help="the container's, after --")
    return parser.parse_args()


def _enter_own_network() -> None:
    """Leave this machine's network for one in which every user may take port 80, as Docker's."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")


def _serve(root: Root, image: list[Stage], arguments: list[str]) -> None:
    entry, check = fact(image, "ENTRYPOINT"), fact(image, "HEALTHCHECK")
    assert entry is not None
    assert check is not None
    url = f"http://127.0.0.1:{root.variables['PORT']}"
    server = subprocess.Popen(root.command([*command(entry), *arguments]))
    try:
        begun = time.monotonic()
        _expect(
            0, root.command(["tgi", "health", "--wait", f"{_START_S}s", "--pid", str(server.pid)])
        )
        print(f"ready after {time.monotonic() - begun:.1f} s as user {root.user}, {url}")
        _expect(0, root.command(command(check)))
        body = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}}
        asked = urllib.request.Request(
            f"{url}/generate", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            print(f"{answer.status} {answer.read().decode()}")
    except BaseException:
        server.kill()
        raise
    server.send_signal(signal.SIGTERM)
    print(f"SIGTERM: exit code {server.wait(_STOP_S)}")
    _expect(1, root.command(command(check)))
    if server.returncode != 0:
        sys.exit(1)


def _expect(code: int, words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=_START_S + 10)
    print(f"exit code {done.returncode}: {' '.join(words[-4:])}: {done.stdout.strip()}", flush=True)
    if done.returncode != code:
        sys.exit(f"expected {code}: {done.stderr}")


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
