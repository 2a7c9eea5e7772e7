"""The converting process, and what is at its target whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from msgspec.json import encode

from tests.builders.conversion import read_tensors, save_pickle, write_config
from tgi_cli.errors import ConversionError, DiskSpaceError
from tgi_cli.runtime.hub.convert import Progress, convert_folder, job
from tgi_cli.runtime.hub.convert.messages import failure
from tgi_cli.runtime.hub.convert.record import read_record

WEIGHT = torch.arange(12.0).view(3, 4)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


class Stop(Exception):
    """Raised by a test out of a progress report."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_pickle(tmp_path / "model" / "pytorch_model.bin", {"w": WEIGHT})
    write_config(tmp_path / "model")
    return tmp_path / "model"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_conversion_appears_whole_also_after_one_that_was_killed(model, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    reports: list[Progress] = []
    killed = tmp_path / ".out.partial"  # as a conversion leaves it whose parent was killed
    killed.mkdir()
    (killed / "model.safetensors").write_bytes(b"half")

    result = convert_folder(model, tmp_path / "out", kind="pickle", progress=reports.append)

    assert names_in(tmp_path) == ["model", "out"]
    assert (result.folder, result.num_tensors) == (str(tmp_path / "out"), 1)
    assert torch.equal(read_tensors(tmp_path / "out")["w"], WEIGHT)
    record = read_record(tmp_path / "out")
    assert record is not None
    assert [source.name for source in record.sources] == ["pytorch_model.bin"]
    assert record.versions.keys() == {"tgi-cli", "torch"}
    assert str(tmp_path) not in (tmp_path / "out" / "conversion.json").read_text()
    assert reports[-1].stage == "check"


def test_a_refusal_is_one_line_leaves_nothing_and_runs_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    save_pickle(model / "pytorch_model.bin", {"w": WEIGHT, "evil": Hostile(tmp_path / "made")})

    with pytest.raises(ConversionError, match=r"^pytorch_model\.bin: refused.*system") as caught:
        convert_folder(model, tmp_path / "out", kind="pickle")

    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 6
    assert names_in(tmp_path) == ["model"]


def test_an_interrupted_conversion_leaves_nothing(model, tmp_path):
    def interrupt(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        convert_folder(model, tmp_path / "out", kind="pickle", progress=interrupt)

    assert names_in(tmp_path) == ["model"]


def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.subprocess, "Popen", None)


def test_a_conversion_is_made_once_and_again_when_its_source_changes(model, tmp_path, monkeypatch):
    first = convert_folder(model, tmp_path / "out", kind="pickle")
    with monkeypatch.context() as patch:
        no_process(patch)
        assert convert_folder(model, tmp_path / "out", kind="pickle") == first
    # Other numbers of the same size, as another epoch of training would leave.
    save_pickle(model / "pytorch_model.bin", {"w": -WEIGHT})
    later = (tmp_path / "out" / "conversion.json").stat().st_mtime_ns + 10**9
    os.utime(model / "pytorch_model.bin", ns=(later, later))

    convert_folder(model, tmp_path / "out", kind="pickle")

    assert torch.equal(read_tensors(tmp_path / "out")["w"], -WEIGHT)


def test_a_folder_that_no_conversion_made_is_left_alone(model, tmp_path, monkeypatch):
    no_process(monkeypatch)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(ConversionError, match="something is there"):
        convert_folder(model, tmp_path / "out", kind="pickle")

    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_target_that_cannot_be_written_is_said_to_be(model, tmp_path, monkeypatch):
    no_process(monkeypatch)
    (tmp_path / "file").touch()

    with pytest.raises(ConversionError, match="can't be written"):
        convert_folder(model, tmp_path / "file" / "out", kind="pickle")


def test_two_conversions_at_once_make_one(model, tmp_path):
    results: list[str] = []

    def convert() -> None:
        results.append(convert_folder(model, tmp_path / "out", kind="pickle").folder)

    threads = [threading.Thread(target=convert) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [str(tmp_path / "out")] * 2
    assert names_in(tmp_path) == ["model", "out"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed, perhaps for want of memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "took more CPU time"),
        ("raise SystemExit(3)", r"ended early \(exit code 3\)"),
    ],
)
def test_a_process_that_dies_is_one_line(script, reason, model, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "dying.py").write_text(script)
    monkeypatch.setattr(job, "_MODULE", "dying")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))

    with pytest.raises(ConversionError, match=reason):
        convert_folder(model, tmp_path / "out", kind="pickle")

    assert names_in(tmp_path) == ["lib", "model"]


def test_the_process_bounds_itself_by_its_files_and_ends_with_its_parent(model):
    script = (
        "import resource, sys\n"
        "from tgi_cli.runtime.hub.convert import __main__ as process\n"
        "from tgi_cli.runtime.hub.convert.messages import Job\n"
        "job = Job(kind='pickle', source=sys.argv[1], into='', shard_size_bytes=1)\n"
        "process._limit_resources(job)\n"
        "for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_CORE):\n"
        "    print(resource.getrlimit(kind)[1], flush=True)\n"
        "process._end_with_parent()\n"
    )
    with (model / "pytorch_model.bin").open("ab") as file:
        file.truncate(1 << 30)

    ended = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )

    data_bytes, cpu_s, core_bytes = map(int, ended.stdout.split())
    assert 4 << 30 < data_bytes <= 8 << 30
    assert 600 < cpu_s < 3600
    assert core_bytes == 0
    assert ended.returncode == 1


def test_a_disk_that_becomes_full_is_an_error_of_its_own(model, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    script = f"import sys; sys.stdin.readline(); print({encode(failure(full)).decode()!r})"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "filling.py").write_text(script)
    monkeypatch.setattr(job, "_MODULE", "filling")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))

    with pytest.raises(DiskSpaceError, match="became full"):
        convert_folder(model, tmp_path / "out", kind="pickle")

    assert names_in(tmp_path) == ["lib", "model"]


@pytest.mark.parametrize("exc", [ValueError("/secret/path"), KeyError("x"), MemoryError()])
def test_an_unexpected_error_is_told_without_its_text(exc):
    told = failure(exc)

    assert told.message.startswith("The conversion ")
    assert "/secret" not in told.message
    assert not told.is_disk_full


def test_the_process_has_no_secrets_(model, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "telling.py").write_text(
        "import json, os, sys; sys.stdin.readline()\n"
        'print(json.dumps({"type": "failed", "message": json.dumps(sorted(os.environ))}))\n'
    )
    monkeypatch.setattr(job, "_MODULE", "telling")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    with pytest.raises(ConversionError) as caught:
        convert_folder(model, tmp_path / "out", kind="pickle")

    names = json.loads(caught.value.message)
    assert "PYTHONPATH" in names
    assert not [name for name in names if name.startswith(("HF_", "TORCH_"))]
