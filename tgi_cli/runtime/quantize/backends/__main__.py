"""The process in which a library quantises. Its exit code and its last line say how it went."""

from __future__ import annotations

import sys

import msgspec

from tgi_cli.runtime.quantize.backends import autoawq, autogptq, gptqmodel
from tgi_cli.runtime.quantize.backends.job import BackendJob

_ADAPTERS = {
    "gptqmodel": gptqmodel.quantize,
    "autoawq": autoawq.quantize,
    "autogptq": autogptq.quantize,
}


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=BackendJob)
    try:
        _ADAPTERS[job.backend](job)
    except Exception as exc:  # a library may raise anything; the traceback is in the log
        import traceback

        traceback.print_exc()
        print(f"{type(exc).__name__}: {' '.join(str(exc).split())}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
