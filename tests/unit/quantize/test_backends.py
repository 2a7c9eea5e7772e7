"""Libraries in place of our solvers: refused if they can't run, else read like results of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.builders.quantize import run_quantize, tiny_model
from tgi_cli.errors import ArgumentError, MissingExtraError, UnsupportedModelError
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.quantize.backends import check_backend
from tgi_cli.runtime.quantize.work_folder import partial_folder

# What the adapter calls, doing what was done before in the test: it copies a checkpoint.
_LIBRARY = """
import json, os, shutil

class BACKEND:
    AUTO, AWQ_TORCH = "auto", "awq_torch"

def QuantizeConfig(**settings):
    return settings

class GPTQModel:
    @classmethod
    def load(cls, source, settings, **options):
        print("told nothing that a screen should show")
        made = cls()
        made.seen = {"source": sorted(os.listdir(source)), "settings": settings}
        made.seen["secret"] = os.environ.get("HF_TOKEN")
        return made

    def quantize(self, rows, **options):
        if os.environ.get("FAKE_FAILS"):
            raise RuntimeError("no compiler\\nwas found")
        self.seen["rows"] = [len(row["input_ids"]) for row in rows]

    def save(self, into):
        shutil.copytree(os.environ["FAKE_RESULT"], into)
        with open(os.environ["FAKE_SEEN"], "w") as file:
            json.dump(self.seen, file)
"""


def install(folder: Path, package: str, version: str, code: str = "") -> None:
    module = folder / f"{package.replace('-', '_')}.py"
    module.parent.mkdir(exist_ok=True)
    module.write_text(code)
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


@pytest.mark.parametrize("backend", ["gptqmodel", "autoawq", "autogptq"])
def test_a_library_that_is_not_here_is_named(backend) -> None:
    with pytest.raises(MissingExtraError, match="isn't installed") as caught:
        check_backend(backend)

    assert "pip install" in str(caught.value.hint)


def test_a_version_that_the_adapter_does_not_know_is_refused(tmp_path, monkeypatch) -> None:
    install(tmp_path, "gptqmodel", "9.0.0")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(MissingExtraError, match=r"works with gptqmodel 7\.6\.\*; 9\.0\.0 is"):
        check_backend("gptqmodel")


@pytest.mark.parametrize(
    ("backend", "package", "version"),
    [("autoawq", "autoawq", "0.2.9"), ("autogptq", "auto-gptq", "0.7.1")],
)
def test_a_library_that_can_not_run_here_is_refused(
    backend, package, version, tmp_path, monkeypatch
) -> None:
    install(tmp_path, package, version)
    monkeypatch.syspath_prepend(tmp_path)  # beside transformers 5, which the tests use

    with pytest.raises(MissingExtraError, match="can't run with transformers 5"):
        check_backend(backend)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path / "library", "gptqmodel", "7.6.0", _LIBRARY)
    monkeypatch.syspath_prepend(tmp_path / "library")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'library'}{os.pathsep}{Path.cwd()}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("FAKE_RESULT", str(tmp_path / "theirs"))
    monkeypatch.setenv("FAKE_SEEN", str(tmp_path / "seen.json"))
    return tmp_path / "seen.json"


def test_a_librarys_result_is_read_and_completed(library: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    run_quantize(model, tmp_path / "theirs", method="gptq")
    for name in ("tokenizer.json", "report.json"):
        (tmp_path / "theirs" / name).unlink()

    run_quantize(model, tmp_path / "out", method="gptq", backend="gptqmodel")

    seen = read_json(library)
    assert "model.safetensors" in seen["source"]
    assert seen["settings"]["damp_percent"] == 0.05
    assert seen["rows"] == [24, 24, 24]
    assert seen["secret"] is None
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        model / "tokenizer.json"
    ).read_bytes()
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("out", "theirs")]
    assert weights[0] == weights[1]
    assert read_json(tmp_path / "out" / "report.json")["recipe"]["backend"] == "gptqmodel"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "gptq by gptqmodel, 4 bits" in card
    assert "to the last bit" not in card  # we can't promise that for a library
    assert not partial_folder(tmp_path / "out").exists()


def test_a_library_that_fails_is_quoted_in_one_line(library, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_FAILS", "1")
    model = tiny_model(tmp_path / "model")

    with pytest.raises(
        UnsupportedModelError, match="RuntimeError: no compiler was found"
    ) as caught:
        run_quantize(model, tmp_path / "out", backend="gptqmodel")

    assert "out.partial/backend.log" in str(caught.value.hint)
    log = (partial_folder(tmp_path / "out") / "backend.log").read_text()
    assert "told nothing that a screen should show" in log
    assert not (tmp_path / "out").exists()


def test_a_library_does_not_round_plainly(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="not rtn"):
        run_quantize(tmp_path, tmp_path / "out", method="rtn", backend="gptqmodel")
