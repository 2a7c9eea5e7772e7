"""Keys and values to their slots, by Triton, interpreted."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from tests.kernels.triton.numbers import DTYPES, nans, randn
from tgi_cli.kernels.paged_attention import BLOCK_SIZE, kernel
from tgi_cli.kernels.paged_attention.fp8_kernel import widen

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.uint8 if x.dtype.itemsize == 1 else torch.int16)


def stored(kv: torch.Tensor, dtype: torch.dtype, slots: torch.Tensor) -> torch.Tensor:
    """Return [T, 2, Hkv, D] as it lies in a cache that was stored to."""
    num_blocks = int(slots.max()) // BLOCK_SIZE + 1
    _, _, num_kv_heads, head_dim = kv.shape
    cache = nans(num_blocks, 2, num_kv_heads, BLOCK_SIZE, head_dim).to(dtype)
    kernel.store(kv, cache, slots)
    return bits(cache)[slots // BLOCK_SIZE, :, :, slots % BLOCK_SIZE]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_kv_heads", "head_dim"), [(1, 16), (3, 80), (8, 256)])
def test_tokens_go_to_their_slots(num_kv_heads, head_dim, dtype):
    qkv = randn(5, 2 * num_kv_heads + 1, head_dim, dtype=dtype)
    kv = qkv[:, 1:].unflatten(1, (2, num_kv_heads))
    slots = torch.tensor([70, 0, 33, 31, 64])

    assert torch.equal(stored(kv, dtype, slots), bits(kv.contiguous()))


def test_a_slot_below_0_takes_nothing():
    kv = randn(3, 2, 2, 64, dtype=torch.float16)
    cache = torch.zeros(1, 2, 2, BLOCK_SIZE, 64, dtype=torch.float16)

    kernel.store(kv, cache, torch.tensor([-1, 7, -1]))

    assert torch.equal(cache[0, :, :, 7], kv[1])
    assert int(cache.count_nonzero()) == int(kv[1].count_nonzero())


@pytest.mark.parametrize("dtype", [*DTYPES, *FP8])
def test_numbers_are_rounded_as_torch_does_and_held_within_the_type(dtype):
    largest = torch.finfo(dtype).max
    halfway = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    halfway = (halfway[:126] + halfway[1:127]) / 2
    special = torch.tensor([0.0, 1e-30, 2.0**-10, 2.0**-16, 2.0**-17, largest, 1e38, torch.inf])
    numbers = torch.cat((halfway, halfway / 2**8, special, randn(400), randn(400) * 1e-3))
    numbers = torch.cat((numbers, -numbers, torch.tensor([torch.nan])))
    padded = torch.zeros(-(-len(numbers) // 128) * 128)
    padded[: len(numbers)] = numbers
    kv = padded.view(-1, 2, 1, 64)

    in_cache = stored(kv, dtype, torch.arange(len(kv))).view(dtype)

    expected = kv.clamp(-largest, largest).to(dtype)
    is_nan = kv.isnan()
    assert bool(in_cache.float()[is_nan].isnan().all())
    assert torch.equal(bits(in_cache)[~is_nan], bits(expected)[~is_nan])


def test_a_cache_may_have_more_than_2_to_the_31_numbers():
    num_blocks = 2**31 // (2 * 2 * BLOCK_SIZE * 64) + 2
    cache = torch.empty(num_blocks, 2, 2, BLOCK_SIZE, 64, dtype=torch.float16)
    kv = randn(2, 2, 2, 64, dtype=torch.float16)
    slots = torch.tensor([(num_blocks - 1) * BLOCK_SIZE + 3, 1])

    kernel.store(kv, cache, slots)

    assert torch.equal(cache[-1, :, :, 3], kv[0])
    assert torch.equal(cache[0, :, :, 1], kv[1])


@triton.jit
def widen_all(codes_ptr, out_ptr, FP8: tl.constexpr):
    places = tl.arange(0, 256)
    tl.store(out_ptr + places, widen(tl.load(codes_ptr + places), FP8))


@pytest.mark.parametrize("kv_dtype", FP8)
def test_all_codes_are_widened_exactly(kv_dtype):
    codes, out = torch.arange(256, dtype=torch.uint8), nans(256, dtype=torch.float16)

    widen_all[(1,)](codes, out, FP8=kernel.FP8_FRACTION_BITS[kv_dtype])

    expected = codes.view(kv_dtype).half()
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
