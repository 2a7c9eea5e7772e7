"""A model's tokenizer without the rest of it: for a client that counts tokens."""

from __future__ import annotations

from pathlib import Path

from tgi_cli.errors import ModelNotFoundError
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.hub.demo import DEMO_ID, demo_path
from tgi_cli.runtime.hub.gguf_file import GgufFile
from tgi_cli.runtime.hub.gguf_tokenizer import gguf_text_assets
from tgi_cli.runtime.hub.json_files import read_text
from tgi_cli.runtime.hub.model_path import local_path
from tgi_cli.runtime.hub.text_files import read_text_assets


def read_tokenizer(name: str, *, may_fetch: bool = False) -> TextAssets:
    """Read the tokenizer of a hub id, a folder, a `.gguf` file or a `tokenizer.json`.

    Only what is here already is read, unless `may_fetch`.

    Raises:
        ModelNotFoundError: there is no such thing.
        UnsupportedModelError, CorruptModelError: it holds no tokenizer that can be read.
    """
    if name == DEMO_ID:
        return _of_gguf(demo_path())
    path = local_path(name)
    if path is not None and path.is_dir():
        ggufs = sorted(path.glob("*.gguf"))
        if len(ggufs) == 1 and not (path / "tokenizer.json").exists():
            return _of_gguf(ggufs[0])
        return read_text_assets(path, None)
    if path is not None and path.is_file():
        if path.suffix == ".gguf":
            return _of_gguf(path)
        return TextAssets(tokenizer_json=read_text(path))
    if not may_fetch:
        return read_text_assets(_cached_folder(name), None)
    # Imported here: the hub's client is slow to import and most runs don't need it.
    from tgi_cli.runtime.hub.remote import fetch

    return read_text_assets(fetch(name, None, None, has_weights=True).folder, None)


def _of_gguf(path: Path) -> TextAssets:
    return gguf_text_assets(GgufFile(path).metadata, path.name)


def _cached_folder(name: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "tokenizer.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise ModelNotFoundError(f"{name}: no such folder, and not in the cache.")
    return Path(found).parent
