"""Folders of quantised weights: found by what they say, refused by tensor before any is read."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.builders.model import engine_config, make_runner
from tests.builders.quantized import AWQ, change_config, compressed, gptq, write_quantized
from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.quantization import Awq, Gptq, PackQuantized
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.hub.safetensors_file import ITEM_BYTES

Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_quantized(tmp_path_factory.mktemp("gptq"), gptq(order="one"))[0]


def with_tensors(folder: Path, target: Path, **changes: torch.Tensor | None) -> Path:
    """Copy the folder with some of one projection's tensors changed, or left out."""
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    for suffix, tensor in changes.items():
        del tensors[f"{Q_PROJ}.{suffix}"]
        if tensor is not None:
            tensors[f"{Q_PROJ}.{suffix}"] = tensor
    save_file(tensors, target / "model.safetensors")
    return target


def load(folder: Path) -> LocatedModel:
    located = locate_model(str(folder))
    make_runner(engine_config(located, max_total_tokens=64, num_blocks=4))
    return located


def test_the_format_is_found_in_config_json(folder):
    quantization = locate_model(str(folder)).weights.quantization

    assert isinstance(quantization, Gptq)
    assert quantization.has_act_order


def test_the_format_is_found_in_a_file_of_its_own(folder, tmp_path):
    with_tensors(folder, tmp_path)
    change_config(tmp_path, quantization_config=None)
    config = {key: value for key, value in gptq(order="one").config.items() if "_m" not in key}
    (tmp_path / "quantize_config.json").write_text(json.dumps(config))

    assert locate_model(str(tmp_path)) .weights.quantization == (
        locate_model(str(folder)).weights.quantization
    )  # fmt: skip


def test_llmcompressors_older_key_is_read(tmp_path):
    recipe = compressed(4, is_symmetric=True)
    folder = write_quantized(tmp_path, recipe)[0]
    change_config(folder, quantization_config=None, compression_config=recipe.config)

    assert isinstance(load(folder).weights.quantization, PackQuantized)


def test_autoawqs_old_file_is_read(tmp_path):
    folder = write_quantized(tmp_path, AWQ)[0]
    change_config(folder, quantization_config=None)
    old = {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}
    (folder / "quant_config.json").write_text(json.dumps(old))

    assert isinstance(load(folder).weights.quantization, Awq)


def test_weights_count_as_what_they_stand_for(folder):
    weights = locate_model(str(folder)).weights

    assert weights.num_parameters * 4 > weights.num_bytes * 1.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qweight": None}, r"q_proj.qweight' of shape \[16, 128\] is missing"),
        ({"g_idx": None}, r"q_proj.g_idx' of shape \[128\] is missing"),
        ({"scales": torch.ones(3, 128).half()}, r"scales' has shape \[3, 128\]; .* \[2, 128\]"),
        ({"qzeros": torch.zeros(2, 17).int()}, r"qzeros' has shape \[2, 17\]"),
        ({"qweight": torch.zeros(16, 128)}, "qweight' is of type F32; weights must be I32"),
        ({"scales": torch.ones(2, 128).int()}, "scales' is of type I32; .*BF16 or F16 or F32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_before_anything_is_read(
    changes, reason, folder, tmp_path
):
    with_tensors(folder, tmp_path, **changes)

    with pytest.raises(CorruptModelError, match=reason):
        locate_model(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scales": torch.full((2, 128), float("nan")).half()}, "scales'.* not a number"),
        ({"g_idx": torch.full((128,), 2).int()}, r"g_idx'.* one of 0 to 1"),
        ({"qzeros": torch.full((2, 16), -1).int()}, "qzeros'.* zero point is 0"),
    ],
)
def test_numbers_that_no_weight_has_end_the_start_by_tensor(changes, reason, folder, tmp_path):
    with_tensors(folder, tmp_path, **changes)

    with pytest.raises(CorruptModelError, match=f"{Q_PROJ}.{reason}"):
        load(tmp_path)


_SIZES = st.lists(st.sampled_from([0, 1, 2, 16, 128, 1 << 31, 1 << 62, -1, True]), max_size=4)


@given(
    suffix=st.sampled_from(["qweight", "qzeros", "scales", "g_idx"]),
    entry=st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from([*ITEM_BYTES, "Q4_0", 3]),
            "shape": _SIZES | st.none(),
            "data_offsets": st.lists(st.integers(-1, 1 << 40), min_size=1, max_size=3),
        },
    ),
)
@example(suffix="scales", entry={"dtype": "BF16"})
@settings(max_examples=60, deadline=None)
def test_a_header_that_lies_of_a_tensor_is_refused(suffix, entry, folder):
    raw = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    name = f"{Q_PROJ}.{suffix}"
    changes = {key: value for key, value in entry.items() if header[name][key] != value}
    # Scales may be of the other 16-bit type.
    is_lie = bool(changes) and (suffix, changes) != ("scales", {"dtype": "BF16"})
    header[name] |= entry
    text = json.dumps(header).encode()

    with tempfile.TemporaryDirectory() as temporary:
        for path in folder.iterdir():
            (Path(temporary) / path.name).write_bytes(path.read_bytes())
        changed = len(text).to_bytes(8, "little") + text + raw[start:]
        (Path(temporary) / "model.safetensors").write_bytes(changed)

        with pytest.raises(CorruptModelError) if is_lie else contextlib.nullcontext():
            locate_model(temporary)


def test_names_with_a_prefix_are_refused_by_the_first_that_is_missing(folder, tmp_path):
    with_tensors(folder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("model.", "model.language_model.", 1): t for name, t in tensors.items()}
    save_file(renamed, tmp_path / "model.safetensors")

    with pytest.raises(CorruptModelError, match=r"'model.embed_tokens.weight' .* is missing"):
        locate_model(str(tmp_path))


def test_a_plain_checkpoint_that_says_it_is_quantised_is_refused(tmp_path):
    plain = write_quantized(tmp_path, AWQ)[1]
    change_config(plain, quantization_config=AWQ.config)

    with pytest.raises(CorruptModelError, match=r"qweight' of shape .* is missing"):
        locate_model(str(plain))


def test_a_group_size_that_does_not_divide_is_refused(folder, tmp_path):
    with_tensors(folder, tmp_path)
    change_config(tmp_path, quantization_config=gptq(group_size=96).config)

    with pytest.raises(CorruptModelError, match="group_size 96 doesn't divide its 128 input"):
        locate_model(str(tmp_path))
