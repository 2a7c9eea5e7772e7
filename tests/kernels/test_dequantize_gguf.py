from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from tgi_cli.kernels.dequantize_gguf import BLOCK_BYTES, dequantize


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


def test_a_wrong_number_of_bytes_is_a_broken_invariant():
    with pytest.raises(AssertionError):
        dequantize(torch.zeros(35, dtype=torch.uint8), "Q8_0", 32)
