from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from tgi_cli.kernels.dequantize_gguf import BLOCK_BYTES, codes_of, dequantize


@pytest.mark.parametrize("ggml_type", BLOCK_BYTES)
def test_dequantizing_equals_the_gguf_package_to_the_last_bit(ggml_type):
    block_size, block_bytes = BLOCK_BYTES[ggml_type]
    num_blocks = 37
    raw = np.random.default_rng(7).integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)
    raw[:, -1] &= 0x3F  # keeps the last fp16 or bf16 of a block finite, wherever it lies
    raw[:, 1] &= 0x3F
    raw[:, 3 % block_bytes] &= 0x3F
    if ggml_type == "F32":
        raw = np.random.default_rng(7).standard_normal(num_blocks, dtype=np.float32).view(np.uint8)

    values = dequantize(
        torch.from_numpy(raw.reshape(-1).copy()), ggml_type, num_blocks * block_size
    )

    expected = gguf.quants.dequantize(raw.reshape(-1), gguf.GGMLQuantizationType[ggml_type])
    np.testing.assert_array_equal(values.numpy(), expected.reshape(-1))


@pytest.mark.parametrize("ggml_type", ["Q4_0", "Q4_1", "Q8_0"])
def test_codes_on_their_grid_are_the_dequantised_weights_to_the_last_bit(ggml_type):
    block_size, block_bytes = BLOCK_BYTES[ggml_type]
    raw = np.random.default_rng(7).integers(0, 256, (5 * 3, block_bytes), dtype=np.uint8)
    raw[:, 1] &= 0x3F  # keeps the scales finite
    raw[:, 3] &= 0x3F
    flat = torch.from_numpy(raw.reshape(-1))

    codes = codes_of(flat, ggml_type, (5, 3 * block_size))

    assert codes is not None
    expected = dequantize(flat, ggml_type, 5 * 3 * block_size).view(5, 3 * block_size)
    assert torch.equal(codes.dequantize(), expected)


def test_types_without_such_a_grid_have_no_codes():
    assert codes_of(torch.zeros(144, dtype=torch.uint8), "Q4_K", (1, 256)) is None


def test_a_wrong_number_of_bytes_is_a_broken_invariant():
    with pytest.raises(AssertionError):
        dequantize(torch.zeros(35, dtype=torch.uint8), "Q8_0", 32)
