"""Beginning beside an earlier run's work: gone on with, begun again, or left alone and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.quantize.work_folder import State, open_work, partial_folder

OPTIONS: dict[str, Any] = {"backend": "own", "symmetric": True, "shard_size": 5}


def state(**options: Any) -> State:
    return State(
        options=OPTIONS | options,
        source=[],
        calibration_sha256=None,
        num_threads=1,
        device="cpu",
        versions={},
    )


def leave_work(output: Path, **options: Any) -> Path:
    """Begin as a run does and stop; return the folder, which has one more file in it."""
    open_work(output, state(**options), resumes=False).close()
    (partial_folder(output) / "backend.log").touch()
    return partial_folder(output)


def test_a_run_goes_on_only_if_asked(tmp_path: Path) -> None:
    leave_work(tmp_path / "out")

    with pytest.raises(ArgumentError, match="holds the work") as caught:
        open_work(tmp_path / "out", state(), resumes=False)

    assert "--resume" in str(caught.value.hint)
    open_work(tmp_path / "out", state(), resumes=True).close()


def test_a_librarys_run_is_begun_again(tmp_path: Path) -> None:
    folder = leave_work(tmp_path / "out", backend="gptqmodel")
    (folder / "library").mkdir()
    (folder / "library" / "model.safetensors").touch()

    open_work(tmp_path / "out", state(backend="gptqmodel"), resumes=False).close()

    assert sorted(path.name for path in folder.iterdir()) == ["layers", "lock", "state.json"]


def test_a_library_is_not_told_to_go_on_with_what_it_can_not(tmp_path: Path) -> None:
    leave_work(tmp_path / "out")

    with pytest.raises(ArgumentError, match="holds the work") as caught:
        open_work(tmp_path / "out", state(backend="gptqmodel"), resumes=False)

    assert "--resume" not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("symmetric", False, "--sym was True"), ("shard_size", 6, "--shard-size was 5 .* 6 now")],
)
def test_what_differs_is_named_by_its_flag(
    tmp_path: Path, name: str, value: object, text: str
) -> None:
    leave_work(tmp_path / "out")

    with pytest.raises(ArgumentError, match=text):
        open_work(tmp_path / "out", state(**{name: value}), resumes=True)


@pytest.mark.parametrize("content", [b"", b"{nope", b"[1]", b"\xff\x00", b'{"options": {}}'])
def test_a_state_that_can_not_be_read_is_told(tmp_path: Path, content: bytes) -> None:
    folder = leave_work(tmp_path / "out")
    (folder / "state.json").write_bytes(content)

    with pytest.raises(ArgumentError, match=r"out\.partial/state\.json can't be read"):
        open_work(tmp_path / "out", state(), resumes=True)


def test_a_state_of_another_version_is_told(tmp_path: Path) -> None:
    folder = leave_work(tmp_path / "out")
    fields = msgspec.to_builtins(state()) | {"a_field_of_tomorrow": 1}
    (folder / "state.json").write_bytes(msgspec.json.encode(fields))

    with pytest.raises(ArgumentError, match="of another version"):
        open_work(tmp_path / "out", state(), resumes=True)


def test_a_result_that_came_meanwhile_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").touch()

    with pytest.raises(ArgumentError, match="was written meanwhile"):
        open_work(tmp_path / "out", state(), resumes=False)


def test_a_file_or_a_link_in_its_place_is_left_alone(tmp_path: Path) -> None:
    partial_folder(tmp_path / "file").write_text("mine")
    partial_folder(tmp_path / "link").symlink_to(tmp_path / "nowhere")

    for name in ("file", "link"):
        with pytest.raises(ArgumentError, match="isn't the work of an earlier run"):
            open_work(tmp_path / name, state(), resumes=True)

    assert partial_folder(tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
