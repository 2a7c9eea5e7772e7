"""Where conversions lie, and when `serve` takes one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.builders.adapters import factors, write_adapter
from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.conversion import convert_here, read_tensors, save_pickle
from tgi_cli.errors import NotAModelError, UnsupportedModelError
from tgi_cli.runtime.hub.convert.from_lora import plan_lora
from tgi_cli.runtime.hub.convert.from_pickles import plan_pickles
from tgi_cli.runtime.hub.convert.places import converted_folder, find_converted
from tgi_cli.runtime.hub.locate import locate_model

SNAPSHOT = "hub/models--org--tiny/snapshots/c0ffee"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SNAPSHOT, "hub/models--org--tiny/converted/c0ffee"),
        (f"{SNAPSHOT}/m.Q4_K_M.gguf", "hub/models--org--tiny/converted/c0ffee-m.Q4_K_M"),
        ("models/tiny", "models/tiny-safetensors"),
        ("models/tiny/m.gguf", "models/tiny/m-safetensors"),
    ],
)
def test_a_conversion_lies_beside_its_source_and_never_in_a_snapshot(source, expected):
    assert converted_folder(Path("/d") / source) == Path("/d") / expected


def pickled_model(folder: Path) -> Path:
    write_tiny_checkpoint(folder, num_hidden_layers=1)
    save_pickle(folder / "pytorch_model.bin", read_tensors(folder))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("place", ["models/tiny", SNAPSHOT])
def test_serve_takes_the_converted_weights_and_says_how_to_get_them(place, tmp_path):
    model = pickled_model(tmp_path / place)
    with pytest.raises(UnsupportedModelError, match="pickle") as caught:
        locate_model(str(model))
    assert caught.value.hint == f"Convert them with: tgi download {model}"
    target = converted_folder(model)
    target.parent.mkdir(exist_ok=True)
    convert_here(plan_pickles, model, target, dtype="bfloat16")

    located = locate_model(str(model))

    assert located.weights.files == (str(target / "model.safetensors"),)
    assert located.config.checkpoint_dtype == "bfloat16"
    assert located.model_id == str(model)


def test_serve_takes_a_merged_adapter_and_says_how_to_merge_one(tmp_path):
    write_tiny_checkpoint(tmp_path / "base", num_hidden_layers=1)
    adapter = write_adapter(tmp_path / "adapter", factors())
    with pytest.raises(NotAModelError, match="a LoRA adapter, not a model") as caught:
        locate_model(str(adapter))
    assert caught.value.hint is not None
    assert f"tgi download --merge-lora {adapter}" in caught.value.hint
    merged = converted_folder(adapter)
    convert_here(plan_lora, adapter, merged, kind="lora", base=str(tmp_path / "base"))

    located = locate_model(str(adapter))

    assert located.weights.files == (str(merged / "model.safetensors"),)


def test_a_conversion_of_other_numbers_is_not_taken(tmp_path):
    model = pickled_model(tmp_path / "tiny")
    target = converted_folder(model)
    convert_here(plan_pickles, model, target)
    assert find_converted(model) == target
    later = (target / "conversion.json").stat().st_mtime_ns + 1

    os.utime(model / "pytorch_model.bin", ns=(later, later))

    assert find_converted(model) is None


def test_a_folder_without_a_record_is_not_taken(tmp_path):
    model = pickled_model(tmp_path / "tiny")
    convert_here(plan_pickles, model, converted_folder(model))
    (converted_folder(model) / "conversion.json").unlink()

    assert find_converted(model) is None
