"""Downloads from a hub of our own, in this process and without waiting."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.builders.files import safetensors_bytes, tensor_entry
from tests.builders.hub import FakeHub, running_hub
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download import obtain
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.result import Obtained

MODEL = "somebody/tiny"
INDEX = "model.safetensors.index.json"


def weights(num_bytes: int = 10_007, name: str = "w", seed: int = 7) -> bytes:
    """Return a safetensors file with one tensor of so many bytes."""
    data = random.Random(seed).randbytes(num_bytes)
    return safetensors_bytes({name: tensor_entry("U8", [num_bytes], 0, num_bytes)}, data)


def model_files(**more: bytes) -> dict[str, bytes]:
    """Return a repository with what serving needs and what it doesn't."""
    return {
        "README.md": b"# Tiny\n",
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b'{"model": {}}',
        "model.safetensors": weights(),
        "pytorch_model.bin": b"a pickle",
        "training_args.bin": b"a pickle too",
        "onnx/model.onnx": b"another framework's",
        "original/model.safetensors": b"another copy",
        "modeling_tiny.py": b"print('code')",
        **more,
    }


@dataclass
class Recorder:
    """A progress that remembers."""

    said: list[str] = field(default_factory=list)
    phases: list[tuple[str, int, int, int]] = field(default_factory=list)
    num_advanced: int = 0

    def begin(self, phase: str, num_files: int, num_bytes: int, num_done: int = 0) -> None:
        self.phases.append((phase, num_files, num_bytes, num_done))

    def begin_file(self, name: str, num_bytes: int, num_done: int = 0) -> None: ...

    def advance(self, name: str, num_bytes: int) -> None:
        self.num_advanced += num_bytes

    def end_file(self, name: str) -> None: ...

    def end(self) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)


class Downloads:
    """A hub, a cache, and the waits that a download would have made."""

    def __init__(self, hub: FakeHub, cache: Path) -> None:
        self.hub = hub
        self.cache = cache
        self.waits_s: list[float] = []
        self.progress = Recorder()

    def get(self, model_id: str = MODEL, **options: Any) -> Obtained:
        options = {"cache_dir": self.cache, "min_free_bytes": 0, "num_workers": 2, **options}
        if options.get("local_dir") is not None:
            options["cache_dir"] = None
        return obtain.obtain(DownloadOptions(model_id=model_id, **options), self.progress, Stop())

    @property
    def repository(self) -> Path:
        return self.cache / "models--somebody--tiny"

    def partials(self) -> list[Path]:
        """Return the files that have begun to arrive."""
        found = sorted(self.cache.rglob("*.incomplete"))
        return [path for path in found if path.stat().st_size > 0]

    def placed(self) -> set[str]:
        """Return the names in all snapshots: what a program could load."""
        folder = self.repository / "snapshots"
        return {
            path.relative_to(folder).as_posix().partition("/")[2]
            for path in folder.rglob("*")
            if path.is_file()
        }


@contextmanager
def downloading(tmp_path: Path) -> Iterator[Downloads]:
    """Send the hub's client to our hub."""
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:
        downloads = Downloads(hub, tmp_path / "cache")
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(variable, raising=False)
        patch.setattr(obtain, "stoppable_pause", lambda _: downloads.waits_s.append)
        yield downloads
