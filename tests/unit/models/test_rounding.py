"""Weights that the asked type can't hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.builders.checkpoints import write_tiny_checkpoint
from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import Weights

NAME = "model.layers.0.mlp.down_proj.weight"


def weights_with(folder: Path, number: float, dtype: str) -> Weights:
    write_tiny_checkpoint(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[NAME][3, 5] = number
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    located = locate_model(str(folder))
    return Weights(WeightsReader(located.weights), located.config, dtype)  # type: ignore[arg-type]


def test_a_number_beyond_float16_ends_the_start_and_names_what_helps(tmp_path: Path) -> None:
    weights = weights_with(tmp_path, -1e6, "float16")

    with pytest.raises(UnsupportedModelError, match=f"'{NAME}' holds numbers beyond") as refused:
        weights.get(NAME)

    assert "--dtype bfloat16" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("number", "dtype"), [(-1e6, "bfloat16"), (65504.0, "float16"), (float("inf"), "float16")]
)
def test_what_the_type_holds_is_rounded_and_no_more(tmp_path: Path, number, dtype) -> None:
    weights = weights_with(tmp_path, number, dtype)

    assert weights.get(NAME)[3, 5] == torch.tensor(number).to(getattr(torch, dtype))
