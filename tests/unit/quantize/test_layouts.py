"""Packed words against readers that follow the published layouts bit by bit, one number a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.quantize import QuantizeOptions, decide
from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear, round_to_grid
from tgi_cli.runtime.quantize.layouts import (
    check_layout,
    pack_projection,
    quantization_config,
    read_projection,
)
from tgi_cli.runtime.quantize.packing import pack, values_per_block
from tgi_cli.runtime.quantize.write_awq import pack_awq
from tgi_cli.runtime.quantize.write_gptq import pack_gptq

BITS = st.sampled_from([2, 3, 4, 8])


def some_linear(bits: int, group_size: int, *, symmetric: bool) -> QuantizedLinear:
    weight = torch.randn(32, 96, generator=torch.Generator().manual_seed(11))
    return round_to_grid(weight, Grid(bits, group_size, symmetric))


def bits_of(words: torch.Tensor) -> str:
    """Return a column of words as one long number in base 2, the lowest bit first."""
    return "".join(f"{word & 0xFFFFFFFF:032b}"[::-1] for word in words.tolist())


@given(bits=BITS, seed=st.integers(0))
def test_values_lie_one_after_the_other_from_the_lowest_bit(bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, 96, dtype=np.uint8)

    words = pack(torch.from_numpy(values)[:, None], bits)

    stream = bits_of(words[:, 0])
    found = [int(stream[i * bits : (i + 1) * bits][::-1], 2) for i in range(96)]
    assert found == values.tolist()


@pytest.mark.parametrize(
    ("bits", "symmetric"), [(2, False), (3, True), (4, True), (4, False), (8, True)]
)
@pytest.mark.parametrize("group_size", [32, -1])
def test_gptq_files_hold_the_same_weight_for_a_plain_reader(
    bits: int, group_size: int, symmetric: bool
) -> None:
    linear = some_linear(bits, group_size, symmetric=symmetric)

    tensors = pack_gptq(linear)

    num_out, num_in = linear.codes.shape
    num_groups = len(tensors["scales"])
    zero_streams = [bits_of(row) for row in tensors["qzeros"]]
    expected = torch.empty(num_out, num_in)
    for n in range(num_out):
        stream = bits_of(tensors["qweight"][:, n])
        for k in range(num_in):
            group = int(tensors["g_idx"][k])
            code = int(stream[k * bits : (k + 1) * bits][::-1], 2)
            zero = int(zero_streams[group][n * bits : (n + 1) * bits][::-1], 2) + 1
            expected[n, k] = (code - zero) * float(tensors["scales"][group, n])
    assert num_groups == (1 if group_size == -1 else num_in // group_size)
    assert torch.equal(expected, linear.dequantize())


def test_symmetric_zeros_are_the_words_that_other_programs_write() -> None:
    assert set(pack_gptq(some_linear(4, 32, symmetric=True))["qzeros"].flatten().tolist()) == {
        0x77777777
    }


def test_awq_files_hold_the_same_weight_for_a_plain_reader() -> None:
    linear = some_linear(4, 32, symmetric=False)

    tensors = pack_awq(linear)

    order = [0, 2, 4, 6, 1, 3, 5, 7]
    expected = torch.empty_like(linear.dequantize())
    for k in range(96):
        for column, word in enumerate(tensors["qweight"][k].tolist()):
            zeros = int(tensors["qzeros"][k // 32, column])
            for i, place in enumerate(order):
                n = 8 * column + place
                code, zero = (word >> 4 * i) & 15, (zeros >> 4 * i) & 15
                expected[n, k] = (code - zero) * float(tensors["scales"][k // 32, n])
    assert torch.equal(expected, linear.dequantize())


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric", "format"),
    [(4, 32, False, "awq"), (4, -1, True, "awq"), (2, 32, False, "gptq"), (8, -1, True, "gptq")],
)
def test_files_are_served_as_the_weight_that_was_solved(
    bits, group_size, symmetric, format
) -> None:
    recipe = decide(
        QuantizeOptions(
            model="m", output="o", method="rtn", bits=bits, sym=symmetric, format=format,
            group_size=group_size,
        )
    )  # fmt: skip
    linear = some_linear(bits, group_size, symmetric=symmetric)

    weight = read_projection(pack_projection(linear, recipe), recipe)

    assert torch.equal(weight, linear.dequantize())


def test_an_order_of_inputs_survives_the_gptq_layout() -> None:
    plain = some_linear(4, 32, symmetric=True)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(3)).to(torch.int32) // 32
    linear = QuantizedLinear(plain.codes, plain.scales, plain.zeros, 4, order)
    recipe = decide(QuantizeOptions(model="m", output="o", desc_act=True, group_size=32))

    weight = read_projection(pack_projection(linear, recipe), recipe)

    assert torch.equal(weight, linear.dequantize())


@pytest.mark.parametrize("method", ["gptq", "rtn", "int8"])
def test_a_damping_that_other_readers_take_is_always_written(method) -> None:
    config = quantization_config(decide(QuantizeOptions(model="m", output="o", method=method)))

    assert 0 < float(str(config["damp_percent"])) < 1


@pytest.mark.parametrize(
    ("bits", "shape", "text"),
    [(4, (12, 64), "12 outputs"), (3, (64, 48), "48 inputs"), (8, (6, 64), "6 outputs")],
)
def test_sizes_that_leave_words_half_full_are_refused(bits, shape, text) -> None:
    recipe = decide(QuantizeOptions(model="m", output="o", bits=bits))

    with pytest.raises(ArgumentError, match=text):
        check_layout(recipe, {"self_attn.q_proj": shape})


def test_blocks_are_the_fewest_values_that_fill_words() -> None:
    assert [values_per_block(bits) for bits in (2, 3, 4, 8)] == [16, 32, 8, 4]
    assert all(values_per_block(bits) * bits == math.lcm(bits, 32) for bits in (2, 3, 4, 8))
