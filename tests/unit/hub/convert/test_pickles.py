"""Pickled checkpoints, sound, damaged and hostile, read in this process."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.conversion import save_pickle
from tgi_cli.errors import ConversionError
from tgi_cli.runtime.hub.convert.pickles import PickleFile

WEIGHT = torch.arange(1000.0)


class Hostile:
    """Unpickled without a guard, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def rewrite(path: Path, change: Callable[[str, bytes], bytes], method: int = 0) -> None:
    """Write an archive's records anew, each as `change` gives it back."""
    with zipfile.ZipFile(path) as archive:
        records = {e.filename: archive.read(e) for e in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def refusal(path: Path) -> str:
    """Return why a file is refused; the message must name it."""
    with pytest.raises(ConversionError, match=rf"^{path.name}: ") as caught:
        PickleFile(path)
    return caught.value.message


@pytest.mark.parametrize("is_old", [False, True])
def test_a_hostile_pickle_is_refused_by_file_and_name_and_nothing_of_it_runs(is_old, tmp_path):
    path, made = tmp_path / "pytorch_model.bin", tmp_path / "made"
    save_pickle(path, {"a": WEIGHT, "b": Hostile(made)}, is_old=is_old)

    message = refusal(path)

    assert "system" in message
    assert not made.exists()
    torch.load(path, weights_only=False)  # the guard is what kept it from running
    assert made.exists()


@pytest.mark.parametrize("is_old", [False, True])
def test_every_type_is_read_in_both_formats(is_old, tmp_path):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]
    tensors = {str(kind): torch.arange(7).to(kind) for kind in [*kinds, torch.bool]}
    tensors |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5)}
    save_pickle(tmp_path / "m.bin", tensors, is_old=is_old)

    file = PickleFile(tmp_path / "m.bin")

    assert file.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert file.tensors[name].dtype is tensor.dtype
        assert torch.equal(file.tensors[name], tensor)


def test_released_tensors_are_read_again_and_their_neighbours_stay(tmp_path):
    tensors = {f"t{i}": torch.full((3000 + i,), float(i)) for i in range(5)}
    save_pickle(tmp_path / "m.bin", tensors)
    file = PickleFile(tmp_path / "m.bin")

    for name, tensor in tensors.items():
        file.release(name)
        assert all(torch.equal(file.tensors[n], t) for n, t in tensors.items()), tensor[0]


def test_a_tensor_of_the_old_format_survives_being_released(tmp_path):
    save_pickle(tmp_path / "m.bin", {"a": WEIGHT}, is_old=True)
    file = PickleFile(tmp_path / "m.bin")

    file.release("a")

    assert torch.equal(file.tensors["a"], WEIGHT)


def test_the_state_dict_of_a_trainer_is_found_and_what_is_no_tensor_is_told(tmp_path):
    save_pickle(tmp_path / "m.pt", {"state_dict": {"a": WEIGHT, "step": 7}, "epoch": 3})

    file = PickleFile(tmp_path / "m.pt")

    assert (list(file.tensors), file.skipped) == (["a"], ["step"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "no tensor"),
        ({"a": 1}, "no tensor"),
        ([WEIGHT], "not a dictionary"),
        ({1: WEIGHT}, "not a dictionary"),
        ({"__metadata__": WEIGHT}, "safetensors reserves"),
        ({"a": WEIGHT.to_sparse()}, "'a' isn't a plain tensor"),
        ({"a": torch.zeros(3, dtype=torch.complex64)}, "'a' is of type complex64"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "claim 4398046511104 bytes"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content, reason, tmp_path):
    save_pickle(tmp_path / "m.bin", content)

    assert reason in refusal(tmp_path / "m.bin")


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(part, is_old, tmp_path):
    path = tmp_path / "m.bin"
    save_pickle(path, {"a": WEIGHT}, is_old=is_old)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part)])

    assert "truncated" in refusal(path)


def test_a_compressed_record_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "m.bin"
    save_pickle(path, {"a": torch.zeros(100_000)})
    rewrite(path, lambda name, content: content, zipfile.ZIP_DEFLATED)

    assert "compressed" in refusal(path)


@pytest.mark.parametrize("length", [1001, 1 << 36])
def test_a_length_that_goes_beyond_its_record_is_refused(length, tmp_path):
    path = tmp_path / "m.bin"
    save_pickle(path, {"a": WEIGHT, "b": torch.ones(5000)})
    claimed = b"\x8a\x05" + length.to_bytes(5, "little")  # LONG1, in place of BININT2 1000
    rewrite(path, lambda name, raw: raw.replace(b"M\xe8\x03", claimed, 1))

    assert "another length" in refusal(path)


@pytest.mark.parametrize("length", [1001, 1 << 31, 1 << 40])
def test_a_length_beyond_a_file_of_the_old_format_is_refused(length, tmp_path):
    path = tmp_path / "m.bin"
    save_pickle(path, {"a": WEIGHT}, is_old=True)
    claimed = b"\x8a\x06" + length.to_bytes(6, "little")  # LONG1, in place of BININT2 1000
    path.write_bytes(path.read_bytes().replace(b"M\xe8\x03", claimed))

    assert "truncated or damaged" in refusal(path)


def test_a_directory_that_points_beyond_the_file_is_refused(tmp_path):
    path = tmp_path / "m.bin"
    save_pickle(path, {"a": WEIGHT})
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    for at in (20, 24):  # compressed and real size of the first record in the directory
        raw[entry + at : entry + at + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(raw)

    assert "claims 1073741824 bytes" in refusal(path)


def test_big_endian_numbers_are_refused(tmp_path):
    path = tmp_path / "m.bin"
    save_pickle(path, {"a": WEIGHT})
    rewrite(path, lambda name, raw: b"big" if name.endswith("byteorder") else raw)

    assert "big endian" in refusal(path)


def test_a_program_is_no_checkpoint(tmp_path):
    path = tmp_path / "m.pt"
    save_pickle(path, {"a": WEIGHT})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/constants.pkl", b"\x80\x02}q\x00.")

    assert "TorchScript" in refusal(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.integers(0, 6000), st.integers(0, 255), min_size=1, max_size=4))
@pytest.mark.parametrize("is_old", [False, True])
def test_damage_anywhere_is_refused_or_harmless(is_old, changes, tmp_path):
    path = tmp_path / "m.bin"
    save_pickle(path, {"a": WEIGHT, "b": torch.ones(3)}, is_old=is_old)
    raw = bytearray(path.read_bytes())
    for position, value in changes.items():
        raw[position % len(raw)] = value
    path.write_bytes(raw)

    try:
        file = PickleFile(path)
    except ConversionError:
        return
    assert all(tensor.numel() <= 6000 for tensor in file.tensors.values())
