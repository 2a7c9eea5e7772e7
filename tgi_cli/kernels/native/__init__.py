"""The shared library of native CPU kernels, if this installation has built it.

One library with a plain C interface (raw pointers and sizes), loaded with `ctypes`, independent
of torch's ABI. It holds every `kernels/<op>/cpu.c`. `pip install` builds it where there is a C
compiler; without it each operation falls back on torch, slower, and `is_available` tells the
start log.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Function = Callable[..., Any]
Pointer = ctypes.c_void_p
Int = ctypes.c_int64
Float = ctypes.c_float

_is_wanted = True


@cache
def _library() -> ctypes.CDLL | None:
    for path in sorted(Path(__file__).parent.glob("_native*.so")):
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # built for another machine, or its OpenMP runtime isn't here
            continue
    return None


def is_available() -> bool:
    return _is_wanted and _library() is not None


def turn_off() -> None:
    """Have every operation fall back on torch, for the rest of this process."""
    global _is_wanted
    _is_wanted = False


@cache
def function(name: str, *argument_types: type, returns: type | None = None) -> Function:
    """Return the C function `name`. Ask `is_available` first."""
    library = _library()
    assert library is not None, "the native library isn't there"
    found = library[name]
    found.argtypes = argument_types
    found.restype = returns
    return found


def set_num_threads(num_threads: int) -> None:
    if is_available():
        function("tgi_set_num_threads", ctypes.c_int)(num_threads)


def choose_instruction_set(best: int) -> str:
    """Use the best set that this machine has up to number `best`; return its name. For tests.

    0: portable vectors, 1: AVX2, 2: AVX-512.
    """
    choose = function("tgi_choose_instruction_set", ctypes.c_int, returns=ctypes.c_char_p)
    return str(choose(best).decode())


def instruction_set() -> str:
    """Name the vectors that products use."""
    return str(function("tgi_instruction_set", returns=ctypes.c_char_p)().decode())
