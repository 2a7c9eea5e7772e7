"""Prove every Triton kernel: `python -m tools.kernels [--only PART] [--no-tests] [--markdown]`.

The exit code is 1 if a test fails, a kernel spills, wants too much shared memory, lacks its matrix
instructions or its wide loads.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator

from tools.kernels.table import COLUMNS, prove_all


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.kernels", description=__doc__)
    parser.add_argument("--only", default="", help="operations whose name contains this")
    parser.add_argument("--no-tests", action="store_true", help="don't run the interpreted tests")
    parser.add_argument("--markdown", action="store_true", help="print a table for a page")
    args = parser.parse_args()
    failures = [] if args.no_tests else list(_test(args.only))
    rows = prove_all(args.only)
    _print([row for row, _ in rows], args.markdown)
    failures += [f"{' '.join(row[:3])}: {each}" for row, broken in rows for each in broken]
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    print(f"{len(rows)} kernels compiled, {len(failures)} failures; none of this ran on a GPU.")
    return 1 if failures else 0


def _test(pattern: str) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/kernels/triton",
        "-k",
        pattern or "test",
    ]
    if subprocess.run(command, check=False).returncode:
        yield "the interpreted tests"


def _print(rows: list[tuple[str, ...]], is_markdown: bool) -> None:
    if is_markdown:
        for row in (COLUMNS, ("---",) * len(COLUMNS), *rows):
            print(f"| {' | '.join(row)} |")
        return
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, *rows):
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    sys.exit(main())
