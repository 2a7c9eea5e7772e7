from __future__ import annotations

from pathlib import Path

import pytest

from tgi_cli.errors import ConversionError
from tgi_cli.runtime.hub.convert.names import pickle_files, safetensors_name


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch_model.bin", "model.safetensors"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("model.pt", "model.safetensors"),
        ("consolidated.00.pt", "consolidated.00.safetensors"),
        ("consolidated.00.pth", "consolidated.00.safetensors"),
        ("adapter_model.bin", "adapter_model.safetensors"),
        ("pytorch_things.bin", "pytorch_things.safetensors"),  # only whole names are replaced
        ("training_args.bin", None),
        ("arguments.pt", None),
        ("optimizer.pt", None),
        ("config.json", None),
    ],
)
def test_a_file_is_named_by_rule(name, expected):
    assert safetensors_name(name) == expected


def test_only_the_first_kind_of_weights_in_a_folder_is_taken(tmp_path):
    folder_of(tmp_path, "pytorch_model.bin", "consolidated.00.pth", "training_args.bin", "x.bin")

    assert pickle_files(tmp_path) == {"pytorch_model.bin": "model.safetensors"}


def test_a_folder_without_weights_has_none(tmp_path):
    assert pickle_files(folder_of(tmp_path, "training_args.bin", "README.md")) == {}


def test_a_missing_shard_is_named(tmp_path):
    folder_of(tmp_path, "pytorch_model-00001-of-00003.bin", "pytorch_model-00003-of-00003.bin")

    with pytest.raises(ConversionError, match=r"model-00002-of-00003\.bin: .*missing; 2 of 3"):
        pickle_files(tmp_path)
