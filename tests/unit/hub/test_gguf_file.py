from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.files import gguf_bytes
from tgi_cli.errors import (
    CorruptModelError,
    NotAModelError,
    StartError,
    UnsupportedModelError,
)
from tgi_cli.runtime.hub.gguf_file import GgufFile

METADATA = {
    "general.architecture": "llama",
    "n": 7,
    "x": 0.5,
    "yes": True,
    "names": ["a", "é"],
    "ids": [3, 1, 2],
}
MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
BLOCKS = bytes(range(34)) * 2
FINE = gguf_bytes(
    METADATA, {"m": ("F32", [3, 4], MATRIX.tobytes()), "q": ("Q8_0", [2, 32], BLOCKS)}
)


def open_bytes(folder: Path, raw: bytes) -> GgufFile:
    path = folder / "m.gguf"
    path.write_bytes(raw)
    return GgufFile(path)


def test_metadata_and_tensors_are_read(tmp_path):
    file = open_bytes(tmp_path, FINE)

    assert dict(file.metadata) == METADATA
    assert file.tensors["m"].shape == (3, 4)
    assert bytes(file.read("m")) == MATRIX.tobytes()
    assert file.tensors["q"].dtype == "Q8_0"
    assert bytes(file.read("q")) == BLOCKS


def test_the_gguf_package_agrees_about_the_demo_model():
    from gguf import GGUFReader

    from tgi_cli.runtime.hub.demo import demo_path

    ours, theirs = GgufFile(demo_path()), GGUFReader(demo_path())

    assert len(ours.tensors) == len(theirs.tensors)
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert info.dtype == tensor.tensor_type.name
        assert info.shape == tuple(int(n) for n in reversed(tensor.shape))
        assert info.offset == tensor.data_offset
        assert info.num_bytes == tensor.n_bytes
    for key, value in ours.metadata.items():
        assert theirs.fields[key].contents() == value


@pytest.mark.parametrize(
    ("raw", "error", "reason"),
    [
        (b"GGML" + FINE[4:], NotAModelError, "not a GGUF file"),
        (gguf_bytes({}, {}, version=1), NotAModelError, "version 1"),
        (gguf_bytes({}, {"t": (99, [2], b"")}), UnsupportedModelError, "'t' has ggml type 99"),
        (gguf_bytes({}, {"t": ("Q8_0", [3], b"")}), CorruptModelError, "'t'.*whole blocks"),
        (gguf_bytes({}, {"t": ("F32", [99], b"")}), CorruptModelError, "'t'.*truncated"),
        (gguf_bytes({}, {"t": ("F32", [1] * 5, b"")}), CorruptModelError, "'t'.*5 dimensions"),
        (gguf_bytes({}, {"t": ("F32", [2**60], b"")}), CorruptModelError, "'t'.*absurd"),
        (gguf_bytes({"general.alignment": 0}, {}), CorruptModelError, "alignment"),
        (FINE[:8] + b"\xff" * 8 + FINE[16:], CorruptModelError, "more than the file holds"),
        (b"", CorruptModelError, "empty"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_reason(raw, error, reason, tmp_path):
    with pytest.raises(error, match=reason):
        open_bytes(tmp_path, raw)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(0, len(FINE)), changes=st.dictionaries(st.integers(0, 400), st.integers(0, 255))
)
def test_damage_anywhere_is_refused_or_harmless(cut, changes, tmp_path):
    raw = bytearray(FINE[: len(FINE) - cut])
    for position, value in changes.items():
        if position < len(raw):
            raw[position] = value

    try:
        file = open_bytes(tmp_path, bytes(raw))
    except StartError:
        return
    for info in file.tensors.values():
        assert len(file.read(info.name)) == info.num_bytes
