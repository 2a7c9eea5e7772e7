from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tgi_cli.runtime.hub.safetensors_file import ITEM_BYTES, SafetensorsFile
from tgi_cli.runtime.hub.safetensors_writer import (
    CheckpointWriter,
    SafetensorsWriter,
    TensorSpec,
    plan_shards,
)

NUMPY_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64} | {
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
SPECS = st.lists(
    st.builds(
        TensorSpec,
        name=st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
        dtype=st.sampled_from(sorted(NUMPY_DTYPES)),
        shape=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    ),
    unique_by=lambda spec: spec.name,
    max_size=7,
)
WEIGHT = TensorSpec("weight", "F32", (3, 5))
BIAS = TensorSpec("bias", "BF16", (3,))


def content(spec: TensorSpec) -> bytes:
    """Return bytes that are a tensor of `spec` and differ from one to the next."""
    rng = np.random.default_rng(sum(map(ord, spec.name)))
    high = 2 if spec.dtype == "BOOL" else 120
    return bytes(rng.integers(0, high, spec.num_bytes, dtype=np.uint8))


def write(path: Path, specs: list[TensorSpec], order: list[TensorSpec] | None = None) -> bytes:
    with SafetensorsWriter(path, specs, {"format": "pt", "note": "é"}) as writer:
        for spec in specs if order is None else order:
            writer.write(spec.name, content(spec))
    return path.read_bytes()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(specs=SPECS, data=st.data())
def test_the_library_and_our_reader_read_what_was_written(specs, data, tmp_path):
    order = data.draw(st.permutations(specs))

    raw = write(tmp_path / "m.safetensors", specs, order)

    arrays = safetensors.numpy.load(raw)
    ours = SafetensorsFile(tmp_path / "m.safetensors")
    assert arrays.keys() == ours.tensors.keys() == {spec.name for spec in specs}
    for spec in specs:
        array, info = arrays[spec.name], ours.tensors[spec.name]
        assert (array.dtype, array.shape) == (NUMPY_DTYPES[spec.dtype], spec.shape)
        assert (info.dtype, info.shape) == (spec.dtype, spec.shape)
        assert array.tobytes() == bytes(ours.read(spec.name)) == content(spec)
        assert info.offset % ITEM_BYTES[spec.dtype] == 0
    assert write(tmp_path / "again", list(reversed(specs)), specs) == raw


def test_metadata_is_kept(tmp_path):
    write(tmp_path / "m.safetensors", [WEIGHT])

    with safe_open(tmp_path / "m.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "note": "é"}


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "m.safetensors"

    with SafetensorsWriter(path, [WEIGHT, BIAS]) as writer:
        writer.write("bias", content(BIAS))
        assert not path.exists()
        writer.write("weight", content(WEIGHT))
        assert not path.exists()

    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_failure_leaves_nothing_and_an_older_file_as_it_was(tmp_path):
    path = tmp_path / "m.safetensors"
    before = write(path, [WEIGHT])

    with pytest.raises(KeyError):
        write(path, [WEIGHT, BIAS], [BIAS, BIAS])

    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["flush", "fsync"])
def test_a_full_disk_leaves_nothing(call, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = SafetensorsWriter(tmp_path / "m.safetensors", [BIAS])
    writer.write("bias", content(BIAS))
    if call == "fsync":
        monkeypatch.setattr("os.fsync", full)
    else:
        monkeypatch.setattr(writer._file, "flush", full, raising=False)

    with pytest.raises(OSError, match="No space"):
        writer.close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", bytes(5), bytes(7)])
def test_bytes_of_another_length_are_a_broken_invariant(data, tmp_path):
    writer = SafetensorsWriter(tmp_path / "m", [BIAS])

    with pytest.raises(AssertionError, match="bias"):
        writer.write("bias", data)
    writer.discard()


def test_a_tensor_that_was_never_written_is_a_broken_invariant(tmp_path):
    with pytest.raises(AssertionError, match="bias"):
        SafetensorsWriter(tmp_path / "m", [BIAS]).close()


@given(specs=SPECS, shard_size=st.integers(1, 3000))
def test_shards_hold_every_tensor_once_in_order_and_no_more_than_fits(specs, shard_size):
    shards = plan_shards(specs, shard_size)

    assert [spec for group in shards.values() for spec in group] == specs
    sizes = [sum(spec.num_bytes for spec in group) for group in shards.values()]
    for size, group, following in zip(
        sizes, shards.values(), [*list(shards.values())[1:], None], strict=True
    ):
        assert size <= shard_size or len([spec for spec in group if spec.num_bytes]) == 1
        if following is not None:
            assert size + following[0].num_bytes > shard_size
    if len(shards) == 1:
        assert list(shards) == ["model.safetensors"]
    else:
        assert list(shards)[-1] == f"model-{len(shards):05}-of-{len(shards):05}.safetensors"


def test_a_sharded_checkpoint_is_written_in_any_order_with_its_index(tmp_path):
    specs = [TensorSpec(f"layer.{i}", "F16", (7, 11)) for i in range(5)]
    shards = plan_shards(specs, 2 * specs[0].num_bytes)

    with CheckpointWriter(tmp_path, shards, {"format": "pt"}) as writer:
        for spec in reversed(specs):
            writer.write(spec.name, content(spec))

    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 5 * 7 * 11 * 2}
    assert set(index["weight_map"].values()) == set(shards)
    for spec in specs:
        file = SafetensorsFile(tmp_path / index["weight_map"][spec.name])
        assert bytes(file.read(spec.name)) == content(spec)


def test_an_interrupted_checkpoint_has_no_index_and_no_partial_file(tmp_path):
    specs = [TensorSpec(f"layer.{i}", "F16", (7, 11)) for i in range(3)]

    def interrupted() -> None:
        with CheckpointWriter(tmp_path, plan_shards(specs, 2 * specs[0].num_bytes)) as writer:
            writer.write("layer.2", content(specs[2]))
            writer.write("layer.0", content(specs[0]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert [path.name for path in tmp_path.iterdir()] == ["model-00002-of-00002.safetensors"]


def test_a_small_checkpoint_is_one_file_without_an_index(tmp_path):
    with CheckpointWriter(tmp_path, plan_shards([WEIGHT, BIAS], 10**9)) as writer:
        writer.write("bias", content(BIAS))
        writer.write("weight", content(WEIGHT))

    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
