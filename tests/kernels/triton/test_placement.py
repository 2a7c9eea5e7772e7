"""What a model's weights become where Triton's kernels compute, interpreted on CPU tensors."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from tests.builders.narrow import NARROW, Narrow, write_narrow
from tests.builders.quantized import AWQ, MARLIN, Recipe, compressed, gptq, write_quantized
from tgi_cli.kernels import devices
from tgi_cli.kernels.dequantize_gguf import codes_of
from tgi_cli.kernels.linear_16bit import Packed16Bit
from tgi_cli.kernels.linear_codes import PackedCodes
from tgi_cli.kernels.linear_int4 import PackedInt4
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.layers import gpu_linear
from tgi_cli.runtime.layers.embedding import tied_embedding
from tgi_cli.runtime.layers.gpu_linear import GpuProjection
from tgi_cli.runtime.layers.head import output_head
from tgi_cli.runtime.layers.linear import project
from tgi_cli.runtime.layers.placement import on_gpu
from tgi_cli.runtime.layers.quantization.int8 import quantize_int8
from tgi_cli.runtime.models.weights import Weights


@pytest.fixture(autouse=True)
def _everything_is_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)


HERE = on_gpu(torch.device("cpu"), torch.bfloat16)
GRIDS: dict[str, tuple[Recipe | Narrow, type]] = {
    "awq": (AWQ, PackedInt4),
    "gptq-2-bits": (gptq(2), PackedInt4),
    "gptq-3-bits-asym": (gptq(3, sym=False), PackedInt4),
    "gptq-act-order": (gptq(order="one"), PackedInt4),
    "gptq-8-bits": (gptq(8), PackedCodes),
    "marlin": (MARLIN, PackedInt4),
    "compressed-4-bits": (compressed(4, is_symmetric=False), PackedInt4),
    "compressed-8-bits": (compressed(8, is_symmetric=True, strategy="channel"), PackedCodes),
    **{name: (narrow, PackedCodes) for name, narrow in NARROW.items()},
    "int-quantized-asym": (NARROW["int-quantized-asym"], Packed16Bit),  # offsets of 8 bits
}
GATE = "model.layers.0.mlp.gate_proj.weight"


def test_a_grid_that_no_kernel_of_the_device_has_is_made_plain_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_linear, "can_multiply", lambda weight: False)
    folder, _ = write_quantized(tmp_path, gptq())
    located = locate_model(str(folder))
    reader = WeightsReader(located.weights)
    on_the_cpu = Weights(reader, located.config, "bfloat16").get_matrix(GATE)
    weights = Weights(reader, located.config, "bfloat16", HERE)

    matrix = weights.get_matrix(GATE)

    assert torch.equal(matrix, on_the_cpu.dequantize().bfloat16())
    assert weights.num_dequantized == 1


def test_a_tied_embedding_is_the_heads_weight_read_by_rows() -> None:
    weight = torch.randn(37, 24, generator=torch.Generator().manual_seed(0)).bfloat16()
    head = output_head(weight, HERE)

    embedding = tied_embedding(head, lambda: pytest.fail("read twice"), HERE)

    assert torch.equal(embedding(torch.tensor([36, 0, 5])), weight[[36, 0, 5]].float())
    assert embedding.num_bytes == 0
    assert head.num_bytes >= 37 * 24 * 2


def test_an_embedding_that_is_tied_to_codes_is_read_again_in_16_bits() -> None:
    weight = torch.randn(37, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    head = output_head(quantize_int8(weight), HERE)

    embedding = tied_embedding(head, lambda: weight, HERE)

    assert torch.equal(embedding(torch.tensor([36, 0, 5])), weight[[36, 0, 5]].float())
    assert embedding.num_bytes == 37 * 32 * 2


def test_scores_are_of_32_bits_whatever_the_activations_are() -> None:
    head = output_head(torch.randn(37, 24).bfloat16(), HERE)

    assert head(torch.randn(3, 24).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("written_by", "kernel"), GRIDS.values(), ids=GRIDS)
def test_each_format_comes_to_the_kernel_that_has_its_grid(written_by, kernel, tmp_path) -> None:
    write = write_narrow if isinstance(written_by, Narrow) else write_quantized
    folder, _ = write(tmp_path, written_by, num_hidden_layers=1)  # type: ignore[arg-type]
    located = locate_model(str(folder))
    weights = Weights(WeightsReader(located.weights), located.config, "bfloat16", HERE)

    projection = project(weights.get_matrix(GATE), placement=HERE)

    assert isinstance(projection, GpuProjection)
    assert isinstance(projection._packed, kernel)
    assert weights.num_dequantized == (kernel is Packed16Bit)


@pytest.mark.parametrize(
    ("ggml_type", "kernel"), [("Q4_0", PackedInt4), ("Q4_1", PackedInt4), ("Q8_0", PackedCodes)]
)
def test_ggufs_own_grids_are_multiplied_too(ggml_type, kernel) -> None:
    numbers = np.random.default_rng(0).standard_normal((32, 64), dtype=np.float32)
    raw = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[ggml_type])
    codes = codes_of(torch.from_numpy(raw.reshape(-1)), ggml_type, (32, 64))
    assert codes is not None

    projection = GpuProjection(codes, placement=HERE)

    assert isinstance(projection._packed, kernel)
