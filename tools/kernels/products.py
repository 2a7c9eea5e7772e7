"""The workloads of matrix products: the projections of a Llama of 8 billion parameters, its head.

A weight is read whole for one row as for many, so a decode step is bound by memory and a prefill by
arithmetic; between them the same tiles change roles.
"""

from __future__ import annotations

from collections.abc import Callable

from tgi_cli.kernels.linear_tiles.tiling import Tiling, cut
from tools.kernels.roofline import Cost, Number
from tools.kernels.workload import Call, Workload

# N, K: o (and q), gate and up of 11008 and of 14336, down.
PROJECTIONS = ((4096, 4096), (22016, 4096), (28672, 4096), (4096, 14336))
HEAD = (128256, 4096)
_ROWS = (1, 16, 64, 4096)
_ROWS_OF_HEAD = (1, 16, 64, 512)  # of a prompt only the last row has a next token


def products(
    op: str,
    make: Callable[[int, int, int, str], Call],
    tuned: dict[str, Tiling],
    weight_bits: float,
    *,
    decode_fraction: float,
    prefill_fraction: float,
    decode_reason: str,
    prefill_reason: str,
    number: Number = "fp16",
    looks_up: bool = False,
    has_head: bool = True,
) -> list[Workload]:
    """Return `op`'s workloads; `make` is given T, N, K and a device.

    `weight_bits` are those of a weight with its share of the scales. The fractions of the roof are
    what is expected of few rows and of many. Loads of what `looks_up` numbers are many and narrow.
    """
    tiling = tuned["sm_90"]

    def workload(num_rows: int, num_out: int, num_in: int, most_rows: int) -> Workload:
        is_large = num_rows == most_rows
        work = cut(tiling, num_rows, num_out, num_in)
        weight_bytes = int(num_out * num_in * weight_bits / 8)
        tile_bytes = work.columns * tiling.depth * weight_bits / 8
        return Workload(
            op=op,
            shape=_shape(num_rows, num_out, num_in),
            make=lambda device: make(num_rows, num_out, num_in, device),
            cost=Cost(
                weight_bytes + 2 * num_rows * (num_in + num_out),
                2 * num_rows * num_out * num_in,
                number,
            ),
            num_programs=work.grid[0] * work.grid[1],
            loop_turns=work.blocks_per_slice * (1 if work.is_split else work.num_slices),
            bytes_in_flight=int(tile_bytes * (work.tile.num_stages - 1)),
            expected_fraction=prefill_fraction if is_large else decode_fraction,
            reason=prefill_reason if is_large else decode_reason,
            uses_mma=True,
            needs_wide_loads=not is_large and not looks_up,
            same_code_as=None if is_large else _shape(most_rows, num_out, num_in),
        )

    workloads = [workload(n, *each, _ROWS[-1]) for each in PROJECTIONS for n in _ROWS]
    if has_head:
        workloads += [workload(n, *HEAD, _ROWS_OF_HEAD[-1]) for n in _ROWS_OF_HEAD]
    return workloads


def _shape(num_rows: int, num_out: int, num_in: int) -> str:
    return f"{num_rows} x {num_out} x {num_in}"
