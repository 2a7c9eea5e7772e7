"""Which request goes wrong: shares of faults, spread evenly over the requests."""

from __future__ import annotations

from tgi_cli.runtime.config.mock import Fault

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill the unit interval evenly


def pick_fault(faults: tuple[Fault, ...], num_spared: int, index: int) -> Fault | None:
    """Return what goes wrong with request `index`, if anything does.

    In any run of n requests a fault of share s hits s * n of them, give or take two or three: no
    draw of luck lies between the options and the counts.
    """
    if index < num_spared:
        return None
    place = (index - num_spared + 1) * _GOLDEN % 1.0
    for fault in faults:
        if place < fault.share:
            return fault
        place -= fault.share
    return None
