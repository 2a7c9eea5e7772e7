"""Folders of 8-bit weights, or of 4 bits with a table: refused by tensor and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.builders.narrow import NARROW, write_narrow
from tests.unit.hub.test_quantized_folders import Q_PROJ, load, with_tensors
from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.hub.locate import locate_model

STATE = "weight.quant_state.bitsandbytes__nf4"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("nf4", "nf4-nested", "bitsandbytes", "fp8", "fp8-blocks")
    return {name: write_narrow(tmp_path_factory.mktemp(name), NARROW[name])[0] for name in names}


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("bitsandbytes", {"SCB": None}, r"q_proj.SCB' of shape \[128\] is missing"),
        ("bitsandbytes", {"SCB": torch.ones(127)}, r"SCB' has shape \[127\]"),
        ("bitsandbytes", {"weight": torch.zeros(128, 128)}, "weight' is of type F32; .* I8"),
        ("nf4", {"weight.absmax": None}, "weight.absmax' .* is missing"),
        ("nf4", {"weight.absmax": torch.ones(255)}, r"absmax' has shape \[255\]"),
        ("nf4", {"weight.quant_map": torch.ones(15)}, r"quant_map' has shape \[15\]"),
        ("nf4", {STATE: None}, "quant_state.bitsandbytes__nf4' .* is missing"),
        ("nf4", {STATE: torch.zeros(5000, dtype=torch.uint8)}, r"nf4' has shape \[5000\]"),
        ("nf4", {"weight": torch.zeros(8191, 1, dtype=torch.uint8)}, r"has shape \[8191, 1\]"),
        ("nf4-nested", {"weight.nested_absmax": None}, "nested_absmax' .* is missing"),
        ("nf4-nested", {"weight.absmax": torch.ones(256)}, "absmax' is of type F32; .* U8"),
        ("fp8", {"weight_scale": None}, "weight_scale' .* is missing"),
        ("fp8", {"weight_scale": torch.ones(7)}, r"weight_scale' has shape \[7\]"),
        ("fp8-blocks", {"weight_scale_inv": torch.ones(3, 3)}, r"\[3, 3\]; config says \[3, 4\]"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused_before_anything_is_read(
    name, changes, reason, folders, tmp_path
):
    with_tensors(folders[name], tmp_path, **changes)

    with pytest.raises(CorruptModelError, match=reason):
        locate_model(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("bitsandbytes", {"SCB": torch.full((128,), torch.nan)}, "SCB'.* not a number"),
        ("nf4", {STATE: torch.zeros(9, dtype=torch.uint8)}, "nf4': it isn't the JSON"),
        ("nf4", {"weight.absmax": torch.ones(128)}, "absmax': it has 128 blocks; .* makes it 256"),
        ("fp8", {"weight_scale": torch.tensor([torch.inf])}, "weight_scale'.* infinite"),
    ],
)
def test_numbers_that_no_weight_has_end_the_start_by_tensor(
    name, changes, reason, folders, tmp_path
):
    with_tensors(folders[name], tmp_path, **changes)

    with pytest.raises(CorruptModelError, match=reason) as caught:
        load(tmp_path)

    assert Q_PROJ in str(caught.value)


def test_a_shape_that_the_model_has_not_is_refused(folders, tmp_path):
    state = b'{"quant_type": "nf4", "blocksize": 64, "shape": [64, 256]}'
    with_tensors(folders["nf4"], tmp_path, **{STATE: torch.tensor(list(state)).byte()})

    with pytest.raises(CorruptModelError, match=r"q_proj has shape \[64, 256\]; .* \[128, 128\]"):
        load(tmp_path)
