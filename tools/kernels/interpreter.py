"""Triton's interpreter, mended and made strict, so that kernels can be tested without a GPU.

`install` changes the interpreter of this process. Then

- bf16 and fp8 are rounded to nearest even and multiplied as numbers (the stock interpreter
  multiplies their bit patterns, triton-lang/triton#11585);
- `tl.dot` adds in ascending k, so that a row's bits don't depend on its place in the tile;
- a load or a store outside every argument's memory fails, and so does an address that two programs
  write, or one writes and another reads (atomics aren't seen);
- the bytes that a launch loads and stores are counted (`traffic`).

TRITON_INTERPRET must be set before triton is imported. Arithmetic on bf16 other than `tl.dot`
stays wrong: kernels cast to fp32 first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton.language as tl
import triton.runtime.interpreter as stock

_FLOATS = {
    tl.float64: torch.float64,
    tl.float32: torch.float32,
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5: torch.float8_e5m2,
}
# NumPy has no such types: the interpreter holds their bits.
_BITS = {tl.bfloat16: torch.uint16, tl.float8e4nv: torch.uint8, tl.float8e5: torch.uint8}


@dataclass(slots=True)
class Traffic:
    """Bytes that launches moved since `reset`: what each program asked for, caches or not."""

    loaded: int = 0
    stored: int = 0

    @property
    def total(self) -> int:
        return self.loaded + self.stored

    def reset(self) -> None:
        self.loaded = self.stored = 0


traffic = Traffic()
_ranges: list[tuple[int, int]] = []  # of the arguments of the launch, in bytes
_writers: dict[int, Any] = {}  # by address: the program that writes it
_patched: set[int] = set()  # modules of kernels whose language is the interpreter's in this launch


@functools.cache
def install() -> None:
    """Mend the interpreter of this process, once."""
    builder, executor, patch = stock.InterpreterBuilder, stock.GridExecutor, stock._patch_lang
    load, store, launch = (
        builder.create_masked_load,
        builder.create_masked_store,
        executor.__call__,
    )

    def masked_load(self: Any, pointers: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        _touch(self, pointers, mask, is_write=False)
        return load(self, pointers, mask, *rest, **options)

    def masked_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        _touch(self, pointers, mask, is_write=True)
        return store(self, pointers, value, mask, *rest)

    def patch_once(fn: Any) -> Any:
        """Spare each call of a device function, `tl.sum` among them, a search of the language."""
        if id(fn.__globals__) in _patched:
            return stock._LangPatchScope()
        _patched.add(id(fn.__globals__))
        return patch(fn)

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        _ranges.clear()
        _writers.clear()
        _patched.clear()
        for argument in (*args, *kwargs.values()):
            tensor = argument.base if hasattr(argument, "block_shape") else argument
            if hasattr(tensor, "data_ptr") and tensor.numel():
                _ranges.append(_memory_of(tensor))
        return launch(self, *args, **kwargs)

    builder.create_dot = _dot
    builder.cast_impl = builder.create_fp_to_fp = _cast
    builder.create_masked_load, builder.create_masked_store = masked_load, masked_store
    executor.__call__ = run
    stock._patch_lang = patch_once


def _memory_of(tensor: torch.Tensor) -> tuple[int, int]:
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _cast(self: Any, source: Any, target: Any, *rounding: Any) -> Any:
    kind, wanted = source.dtype.scalar, target.scalar
    x = torch.from_numpy(np.array(source.data))
    if x.dtype == _BITS.get(kind):  # a comparison keeps its operand's type on its bools
        x = x.view(_FLOATS[kind])
    if wanted not in _FLOATS:
        numbers = (x.float() if kind in _BITS else x).numpy()
        return stock.TensorHandle(numbers.astype(stock._get_np_dtype(target)), wanted)
    y = x.to(_FLOATS[wanted])
    return stock.TensorHandle((y.view(_BITS[wanted]) if wanted in _BITS else y).numpy(), wanted)


def _dot(self: Any, a: Any, b: Any, acc: Any, *options: Any) -> Any:
    number = np.int32 if a.dtype.scalar.is_int() else np.float32
    left, right = (
        _cast(self, h, tl.float32).data if h.dtype.scalar in _BITS else h.data.astype(number)
        for h in (a, b)
    )
    total = acc.data.astype(number)
    for k in range(left.shape[-1]):
        total = total + left[..., :, k, None] * right[..., k, None, :]
    return stock.TensorHandle(total.astype(acc.data.dtype), acc.dtype.scalar)


def _touch(builder: Any, pointers: Any, mask: Any, *, is_write: bool) -> None:
    addresses, wanted = np.broadcast_arrays(pointers.data, mask.data)
    addresses = addresses[wanted.astype(np.bool_)]  # `&` with a scalar makes a mask of integers
    size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
    if is_write:
        traffic.stored += addresses.size * size
    else:
        traffic.loaded += addresses.size * size
    program = builder.grid_idx
    is_inside = np.zeros(addresses.shape, dtype=np.bool_)
    for low, high in _ranges:
        is_inside |= (addresses >= low) & (addresses + size <= high)
    num_outside = int((~is_inside).sum())
    assert not num_outside, f"{num_outside} of {addresses.size} lanes are outside, in {program}"
    for address in addresses.tolist() if is_write or _writers else ():
        other = (
            _writers.setdefault(address, program) if is_write else _writers.get(address, program)
        )
        assert other == program, f"programs {other} and {program} share an address"
