from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.files import safetensors_bytes, tensor_entry
from tgi_cli.errors import CorruptModelError, ModelNotFoundError
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile

FINE = {"a": tensor_entry("F32", [2, 3], 0, 24), "b": tensor_entry("I8", [5], 24, 29)}


def open_bytes(folder: Path, raw: bytes) -> SafetensorsFile:
    path = folder / "m.safetensors"
    path.write_bytes(raw)
    return SafetensorsFile(path)


def test_a_file_of_the_library_is_read_to_the_last_byte(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.float16),
        "matrix": rng.standard_normal((7, 5)).astype(np.float16),
        "ids": np.arange(11, dtype=np.int64),
    }
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})

    file = SafetensorsFile(path)

    assert file.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        assert file.tensors[name].shape == array.shape
        assert bytes(file.read(name)) == array.tobytes()


BROKEN = {
    "overlap": ({**FINE, "b": tensor_entry("I8", [5], 20, 25)}, 29, "overlaps"),
    "gap": ({**FINE, "b": tensor_entry("I8", [5], 26, 31)}, 31, "cover 29 bytes of 31"),
    "truncated": (FINE, 20, "'a'.*truncated"),
    "trailing_bytes": (FINE, 40, "cover 29 bytes of 40"),
    "wrong_size": ({"a": tensor_entry("F32", [2, 3], 0, 20)}, 20, "'a'.*needs 24 bytes, has 20"),
    "backwards": ({"a": tensor_entry("F32", [2], 8, 0)}, 8, "'a'"),
    "unknown_dtype": ({"a": tensor_entry("F99", [2], 0, 8)}, 8, "'a'.*unknown dtype 'F99'"),
    "negative_size": ({"a": tensor_entry("F32", [-2], 0, 8)}, 8, "'a'.*shape"),
    "huge_shape": ({"a": tensor_entry("F32", [2**40, 2**40], 0, 8)}, 8, "'a'.*needs"),
    "float_size": ({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, 8, "'a'"),
    "entry_a_list": ({"a": [1]}, 0, "'a'.*isn't an object"),
    "header_a_list": ([1], 0, "isn't a JSON object"),
    "header_not_json": (b"{", 0, "isn't JSON"),
    "header_not_utf8": (b"\xff\xff", 0, "isn't JSON"),
    "header_deep": (b"[" * 100_000, 0, "isn't JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_with_file_tensor_and_reason(case, tmp_path):
    header, data_bytes, reason = BROKEN[case]

    with pytest.raises(CorruptModelError, match=rf"m\.safetensors.*{reason}"):
        open_bytes(tmp_path, safetensors_bytes(header, bytes(data_bytes)))


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\xff" * 8, (10**9).to_bytes(8, "little") + b"{}"])
def test_a_header_that_cannot_be_there_is_refused(raw, tmp_path):
    with pytest.raises(CorruptModelError):
        open_bytes(tmp_path, raw)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelNotFoundError, match="missing"):
        SafetensorsFile(tmp_path / "missing.safetensors")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 200), changes=st.dictionaries(st.integers(0, 150), st.integers(0, 255)))
def test_damage_anywhere_is_refused_or_harmless(cut, changes, tmp_path):
    raw = bytearray(safetensors_bytes(FINE, bytes(29))[: max(0, 200 - cut)])
    for position, value in changes.items():
        if position < len(raw):
            raw[position] = value

    try:
        file = open_bytes(tmp_path, bytes(raw))
    except CorruptModelError:
        return
    for info in file.tensors.values():
        assert len(file.read(info.name)) == info.num_bytes
