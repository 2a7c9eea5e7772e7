"""Prove every Triton kernel: `python -m tools.kernels [--only PART] [--quick] [--no-tests]
[--markdown]`.

The exit code is 1 if a test fails, a kernel spills, wants too much shared memory, lacks its matrix
instructions or its wide loads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator

from tools.kernels.table import COLUMNS, prove_all, prove_quickly
from tools.kernels.text_table import print_table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.kernels", description=__doc__)
    parser.add_argument("--only", default="", help="operations whose name contains this")
    parser.add_argument("--no-tests", action="store_true", help="don't run the interpreted tests")
    parser.add_argument("--quick", action="store_true", help="one workload of each operation only")
    parser.add_argument("--markdown", action="store_true", help="print a table for a page")
    args = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        parser.error("TRITON_INTERPRET is set: an interpreted kernel isn't compiled; unset it")
    failures = [] if args.no_tests else list(_test(args.only))
    rows = prove_quickly(args.only) if args.quick else prove_all(args.only)
    print_table(COLUMNS, [row for row, _ in rows], is_markdown=args.markdown)
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


if __name__ == "__main__":
    sys.exit(main())
