"""Where a tensor is, what its device is, and so which implementation of an operation computes.

Launchers look their tiles up by a device's family: the compiled-for architecture nearest below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ("sm_80", "sm_90", "gfx942")
_CDNA3_AND_4 = ("gfx942", "gfx950")


def is_gpu(x: Tensor) -> bool:
    """Whether Triton's kernels compute on `x`. ROCm's devices go by the name of cuda, too."""
    return x.is_cuda


def family(arch: str) -> str | None:
    """Return which of `FAMILIES` has the tiles of `arch`, such as "sm_89"; None: it is too old.

    From sm_120 on NVIDIA's number counts desktop chips, which have the instructions and little
    more of the shared memory of sm_89.
    """
    if arch in _CDNA3_AND_4:
        return "gfx942"
    number = arch.removeprefix("sm_")
    if number == arch or not number.isdigit() or int(number) < 80:
        return None
    return "sm_90" if 90 <= int(number) < 120 else "sm_80"


def target() -> str:
    """Return the family of the current device; in Triton's interpreter, which has none, "sm_80"."""
    import triton

    if triton.knobs.runtime.interpret:
        return "sm_80"
    current = triton.runtime.driver.active.get_current_target()
    arch = current.arch if current.backend == "hip" else f"sm_{current.arch}"
    found = family(arch.partition(":")[0])
    assert found is not None, arch  # refused at start
    return found
