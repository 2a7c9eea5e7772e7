"""What a command costs before it does anything: CPU time of its process, user and system together.

`tgi --help` has 0.3 s, a health probe 0.1 s. The probe asks a port where nobody listens, so that
all of it is the probe's own. `python -c pass` is the floor. `--imports N` names the slowest imports
of `tgi --help`, by `python -X importtime`.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys

_TGI = ("-m", "tgi_cli")
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")  # own time in us, all of it, name


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--imports", type=int, default=0)
    args = parser.parse_args(argv)
    with socket.socket() as bound:  # not listening: a connection is refused at once
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        commands = {
            "python -c pass": ("-c", "pass"),
            "tgi health": (*_TGI, "health", url),
            "tgi --version": (*_TGI, "--version"),
            "tgi --help": (*_TGI, "--help"),
            "tgi serve --help": (*_TGI, "serve", "--help"),
            "tgi bench --help": (*_TGI, "bench", "--help"),
        }
        times_s: dict[str, list[float]] = {name: [] for name in commands}
        for repetition in range(args.repetitions + 1):
            for name, command in commands.items():
                time_s = _cpu_time_s(command)
                if repetition:  # the first is a warm-up
                    times_s[name].append(time_s)
    print("| command | CPU, ms: median | least | most |")
    print("| --- | --- | --- | --- |")
    for name, found in times_s.items():
        shown = (statistics.median(found), min(found), max(found))
        print(f"| `{name}` | {' | '.join(f'{1000 * each:.0f}' for each in shown)} |")
    if args.imports:
        _print_imports(args.imports)


def _cpu_time_s(command: tuple[str, ...]) -> float:
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _print_imports(num_shown: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", *_TGI, "--help"], capture_output=True, text=True
    )
    found = [(int(own), name) for own, name in _IMPORT.findall(ran.stderr)]
    print(f"\n{len(found)} imports of `tgi --help`, own time in ms:")
    for own, name in sorted(found, reverse=True)[:num_shown]:
        print(f"{own / 1000:6.1f} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
