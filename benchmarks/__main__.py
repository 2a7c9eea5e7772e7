"""`python -m benchmarks NAME [options]`; with no name, router and serving in turn."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "router",
    "serving",
    "kernels",
    "gpu",
    "neighbours",
    "prefix",
    "guided",
    "startup",
    "download",
    "bench_client",
    "quantized",
    "quantize_quality",
    "quantize_peers",
)
_USUAL = ("router", "serving")


def main() -> None:
    asked = sys.argv[1:]
    if asked and asked[0] in ("-h", "--help"):
        print(__doc__, "Names:", ", ".join(NAMES))
    elif asked and asked[0] in NAMES:
        importlib.import_module(f"benchmarks.{asked[0]}").main(asked[1:])
    elif asked:
        sys.exit(f"No benchmark named {asked[0]!r}; there are {', '.join(NAMES)}.")
    else:
        for name in _USUAL:
            importlib.import_module(f"benchmarks.{name}").main([])


if __name__ == "__main__":
    main()
