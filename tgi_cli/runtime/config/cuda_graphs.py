"""For which batch sizes a decode step is captured as a CUDA graph."""

from __future__ import annotations

from tgi_cli.runtime.config.options import ServeOptions

_FIRST = (1, 2, 4)
_STEP = 8
_LARGEST = 256  # beyond it a step computes for so long that its launches are hidden


def choose_cuda_graphs(
    options: ServeOptions, method: str | None, max_running: int
) -> tuple[int, ...]:
    """Return the sizes, ascending; what is larger than any batch becomes the largest batch.

    `method` is how the weights are quantised: TGI captures none over bitsandbytes' kernels unless
    asked to (spec/launcher-options.md section 4.4).
    """
    if options.cuda_graphs is not None:
        sizes = options.cuda_graphs
    elif method is not None and method.startswith("bitsandbytes"):
        sizes = ()
    else:
        sizes = ladder(max_running)
    return tuple(sorted({min(size, max_running) for size in sizes}))


def ladder(max_running: int) -> tuple[int, ...]:
    """Return 1, 2, 4 and multiples of 8, of which the last holds the largest batch, or 256."""
    top = min(-(-max_running // _STEP) * _STEP, _LARGEST)
    return (*_FIRST, *range(_STEP, top + 1, _STEP))
