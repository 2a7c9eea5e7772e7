"""What a model's weights become where Triton's kernels compute, interpreted on CPU tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.builders.quantized import gptq, write_quantized
from tgi_cli.kernels import devices
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.layers import gpu_linear
from tgi_cli.runtime.layers.embedding import tied_embedding
from tgi_cli.runtime.layers.head import output_head
from tgi_cli.runtime.layers.placement import on_gpu
from tgi_cli.runtime.models.weights import Weights


@pytest.fixture(autouse=True)
def _everything_is_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)


HERE = on_gpu(torch.device("cpu"), torch.bfloat16)
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


def test_scores_are_of_32_bits_whatever_the_activations_are() -> None:
    head = output_head(torch.randn(37, 24).bfloat16(), HERE)

    assert head(torch.randn(3, 24).bfloat16()).dtype == torch.float32
