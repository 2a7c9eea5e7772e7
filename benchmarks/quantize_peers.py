"""Our solvers beside gptqmodel's GPTQ and llmcompressor's AWQ: quality and time.

Both quantise the demo model's fp16 weights on the same calibration windows, in turn, each in a
process of its own with the same threads; the written checkpoints are measured by `tgi quantize
--evaluate` on the same held-out text. A library's environment is made at its first use.

Times are of the whole process, and for a library, in brackets, of its solver alone, without
importing, loading and saving.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.export_demo import export_demo
from benchmarks.peers import own_environment
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.quantize.calibration import calibration_text, draw_windows
from tgi_cli.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Contest:
    """`method` are our options; `packages` of the peer in an environment of its own."""

    peer: str
    packages: tuple[str, ...]
    method: tuple[str, ...]


CONTESTS = {
    "gptq": Contest("gptqmodel", ("gptqmodel==7.6.0", "optimum"), ("--method", "gptq", "--sym")),
    "awq": Contest("llmcompressor", ("llmcompressor==0.14.0.1",), ("--method", "awq")),
}


_SOLVED = re.compile(r"^solved in ([0-9.]+)$", re.MULTILINE)  # what `quantize_peer.py` prints


@dataclass(frozen=True, slots=True)
class Ran:
    printed: str
    took_s: float
    cpu_s: float
    peak_bytes: int


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks quantize_peers", description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--rounds", type=int, default=1, help="times that each quantises")
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--num-samples", type=int, default=16, help="calibration windows")
    parser.add_argument("--sequence-length", type=int, default=512, help="tokens of a window")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(arguments)
    print("| method | by | perplexity | KL | top-1 | time, s | CPU, s | peak, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        export_demo(source)
        for method in args.methods:
            contest = CONTESTS[method]
            outputs = {name: Path(folder, f"{method}-{name}") for name in ("tgi", contest.peer)}
            for number in range(args.rounds):
                for name, output in outputs.items():
                    into = output.with_name(f"{output.name}-{number}")
                    solve = _ours if name == "tgi" else _theirs
                    ran = solve(contest, source, into, args)
                    took = f"{ran.took_s:.0f}"
                    if name != "tgi":
                        took += f" ({float(_SOLVED.findall(ran.printed)[-1]):.0f})"
                    print(_row([method, name], took, ran, _quality(source, into)), flush=True)


def _row(names: list[str], took: str, ran: Ran, quality: dict[str, Any]) -> str:
    cells = [
        *names,
        f"{quality['perplexity']:.2f} ({quality['original_perplexity']:.2f})",
        f"{quality['mean_kl']:.4f}",
        f"{quality['top1']:.3f}",
        took,
        f"{ran.cpu_s:.0f}",
        f"{ran.peak_bytes / 1e6:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _ours(contest: Contest, source: Path, into: Path, args: argparse.Namespace) -> Ran:
    sizes = ["--group-size", args.group_size, "--num-samples", args.num_samples]
    sizes += ["--sequence-length", args.sequence_length]
    command = ["quantize", source, into, *contest.method, *sizes, "--no-evaluation"]
    return _run([sys.executable, "-m", "tgi_cli", *map(str, command)], args.threads)


def _theirs(contest: Contest, source: Path, into: Path, args: argparse.Namespace) -> Ran:
    torch = f"torch=={version('torch').partition('+')[0]}"  # as ours
    python = own_environment(contest.peer, [*contest.packages, torch]) / "bin" / "python"
    windows = draw_windows(
        Tokenizer(locate_model(str(source)).text),
        calibration_text(),
        args.num_samples,
        args.sequence_length,
        seed=0,
    )
    job = {
        "peer": contest.peer,
        "source": str(source),
        "into": str(into),
        "group_size": args.group_size,
        "num_threads": args.threads,
        "windows": windows.tolist(),
    }
    script = Path(__file__).with_name("quantize_peer.py")
    ran = _run([str(python), "-P", str(script)], args.threads, json.dumps(job))
    for file in source.glob("*token*.json"):  # a library may save the weights alone
        if not (into / file.name).exists():
            shutil.copy(file, into)
    return ran


def _quality(source: Path, output: Path) -> dict[str, Any]:
    command = ["quantize", "--evaluate", str(output), "--against", str(source), "--json-output"]
    ran = _run([sys.executable, "-m", "tgi_cli", *command], len(os.sched_getaffinity(0)))
    quality: dict[str, Any] = json.loads(ran.printed)["quality"]
    return quality


def _run(command: list[str], num_threads: int, given: str = "") -> Ran:
    settings = {
        "OMP_NUM_THREADS": str(num_threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # as ours: threads that spin stop one another on busy cores
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryFile("w+") as job, tempfile.TemporaryFile("w+") as log:
        job.write(given)
        job.seek(0)
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                stdin=job,
                stdout=output,
                stderr=log,
                env=os.environ | settings,
                cwd=folder,  # where a library may leave logs of its own
            )
            _, status, usage = os.wait4(process.pid, 0)
            took_s = time.monotonic() - began
            output.seek(0)
            printed = output.read()
        if status:
            log.seek(0)
            print(printed[-2000:] + log.read()[-4000:], file=sys.stderr)
            sys.exit(f"{' '.join(command[:6])} failed.")
    return Ran(printed.strip(), took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
