"""From what the user calls a model to its files, configuration and text assets, all checked.

A model id is `demo`, a folder of safetensors (or of pickles that `tgi download` has converted), a
`.gguf` file, or a repository on the Hugging Face hub. Only files that serving needs are fetched.
Nothing from them runs (DESIGN decision 6).
"""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tgi_cli.errors import (
    CorruptModelError,
    ModelNotFoundError,
    NotAModelError,
    UnsupportedModelError,
)
from tgi_cli.runtime.config.gguf_config import parse_gguf_metadata
from tgi_cli.runtime.config.hf_config import parse_hf_config
from tgi_cli.runtime.config.model_config import ModelConfig, TextAssets, WeightsSource
from tgi_cli.runtime.config.quantization import Quantization
from tgi_cli.runtime.config.stored_tensors import num_parameters
from tgi_cli.runtime.hub.check_tensors import check_tensors
from tgi_cli.runtime.hub.convert.names import pickle_files
from tgi_cli.runtime.hub.convert.places import ADAPTER_CONFIG, find_converted
from tgi_cli.runtime.hub.demo import DEMO_ID, demo_path
from tgi_cli.runtime.hub.gguf_file import GgufFile
from tgi_cli.runtime.hub.gguf_parts import open_gguf
from tgi_cli.runtime.hub.gguf_tokenizer import gguf_eos_token_ids, gguf_text_assets
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.hub.model_path import local_path
from tgi_cli.runtime.hub.quantization_files import as_stored, read_quantization
from tgi_cli.runtime.hub.text_files import eos_token_ids, read_text_assets, with_tokenizer_config
from tgi_cli.runtime.hub.weights_reader import WeightsReader

ROPE_DIVISORS = "rope_freqs.weight"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class LocatedModel:
    """A model whose files are here and fit together; no weight has been read yet."""

    model_id: str
    sha: str | None  # commit on the hub
    pipeline_tag: str | None
    config: ModelConfig
    weights: WeightsSource
    eos_token_ids: tuple[int, ...]
    text: TextAssets


def locate_model(
    model_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | None = None,
    tokenizer_config_path: str | None = None,
    weights_folder: str | None = None,
    token: str | None = None,
) -> LocatedModel:
    """Find a model and check everything about it that can be checked without reading weights.

    `weights_folder` holds the safetensors in place of the model's own folder; `token` is the hub's.

    Raises:
        ModelNotFoundError: no such folder, file or repository, or no access to it.
        NotAModelError: there is something, but it isn't a model.
        UnsupportedModelError, CorruptModelError: it can't be served, and why.
    """
    if model_id == DEMO_ID:
        _check_no_weights_folder(model_id, weights_folder)
        return _locate_gguf(model_id, demo_path(), tokenizer_config_path)
    path = local_path(model_id)
    if path is not None and path.is_dir():
        return _locate_folder(model_id, path, weights_folder, tokenizer_config_path)
    if path is not None:
        if path.suffix != ".gguf" or not path.is_file():
            raise NotAModelError(
                f"{model_id}: a file that isn't a .gguf; give a folder, a .gguf file or a hub id."
            )
        _check_no_weights_folder(model_id, weights_folder)
        return _locate_gguf(model_id, path, tokenizer_config_path)
    # Imported here: the hub's client is slow to import and most starts don't need it.
    from tgi_cli.runtime.hub.remote import fetch

    has_weights = weights_folder is not None
    fetched = fetch(model_id, revision, cache_dir, token=token, has_weights=has_weights)
    if fetched.gguf_file is not None:
        _check_no_weights_folder(model_id, weights_folder)
        located = _locate_gguf(model_id, fetched.folder / fetched.gguf_file, tokenizer_config_path)
    else:
        located = _locate_folder(model_id, fetched.folder, weights_folder, tokenizer_config_path)
    return dataclasses.replace(located, sha=fetched.sha, pipeline_tag=fetched.pipeline_tag)


def _locate_gguf(model_id: str, path: Path, tokenizer_config_path: str | None) -> LocatedModel:
    files = open_gguf(path)
    metadata = files[0].metadata
    tensors = frozenset(name for file in files for name in file.tensors)
    config = parse_gguf_metadata(metadata, tensors, path.name, _rope_divisors(files))
    text = gguf_text_assets(metadata, path.name)
    text = with_tokenizer_config(text, tokenizer_config_path)
    weights = _checked_weights(config, "gguf", [file.path for file in files])
    eos = gguf_eos_token_ids(metadata)
    return LocatedModel(model_id, None, None, config, weights, eos, text)


def _rope_divisors(files: list[GgufFile]) -> tuple[float, ...]:
    """Return the numbers of the one tensor that is configuration rather than weight."""
    file = next((file for file in files if ROPE_DIVISORS in file.tensors), None)
    if file is None:
        return ()
    info = file.tensors[ROPE_DIVISORS]
    if info.dtype != "F32":
        raise CorruptModelError(f"{file.path.name}: tensor {ROPE_DIVISORS!r} must be F32.")
    return struct.unpack(f"<{info.num_elements}f", file.read(ROPE_DIVISORS))


def _locate_folder(
    model_id: str,
    folder: Path,
    weights_folder: str | None,
    tokenizer_config_path: str | None,
) -> LocatedModel:
    if weights_folder is None:
        folder = _converted_or(folder)
    if not (folder / "config.json").exists():
        if (folder / ADAPTER_CONFIG).exists():
            raise NotAModelError(
                f"{model_id}: a LoRA adapter, not a model.",
                hint=f"Merge it into its base model: tgi download --merge-lora {model_id}",
            )
        ggufs = sorted(folder.glob("*.gguf"))
        if len(ggufs) == 1:
            _check_no_weights_folder(model_id, weights_folder)
            return _locate_gguf(model_id, ggufs[0], tokenizer_config_path)
        reason = "no config.json" if not ggufs else f"{len(ggufs)} .gguf files: name one of them"
        raise NotAModelError(f"{model_id}: the folder isn't a model ({reason}).")
    raw_config = read_json(folder / "config.json")
    config = parse_hf_config(raw_config)
    quantization = read_quantization(folder, raw_config)
    holder = folder if weights_folder is None else Path(weights_folder).expanduser()
    if not holder.is_dir():
        raise ModelNotFoundError(f"{weights_folder}: no such folder (--weights-cache-override).")
    files = safetensors_files(model_id, holder)
    weights = _checked_weights(config, "safetensors", files, quantization)
    text = read_text_assets(folder, tokenizer_config_path)
    eos = eos_token_ids(folder, raw_config, text)
    return LocatedModel(model_id, None, None, config, weights, eos, text)


def _converted_or(folder: Path) -> Path:
    """Return what `folder` was converted to, if it needs that and it was; else itself."""
    is_adapter = (folder / ADAPTER_CONFIG).exists() and not (folder / "config.json").exists()
    if is_adapter or not any(folder.glob("*.safetensors")):
        return find_converted(folder) or folder
    return folder


def _check_no_weights_folder(model_id: str, weights_folder: str | None) -> None:
    if weights_folder is not None:
        raise UnsupportedModelError(
            f"{model_id} is one GGUF file, so its weights can't come from another folder.",
            hint="Leave --weights-cache-override out.",
        )


def _checked_weights(
    config: ModelConfig, kind: str, files: list[Path], quantization: Quantization | None = None
) -> WeightsSource:
    source = msgspec.convert(
        {"kind": kind, "files": [str(f) for f in files], "num_bytes": 0, "num_parameters": 0},
        WeightsSource,
    )
    reader = WeightsReader(source)
    if quantization is not None:
        quantization = as_stored(quantization, config, reader)
    check_tensors(config, reader, quantization)
    return msgspec.structs.replace(
        source,
        num_bytes=reader.num_bytes(),
        num_parameters=num_parameters(config),
        num_bytes_on_grid=reader.num_bytes_on_grid(),
        quantization=quantization,
    )


def safetensors_files(model_id: str, folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights.

    Raises:
        UnsupportedModelError: there are weights, but in pickles.
        NotAModelError, CorruptModelError: there are none, or not all of them.
    """
    index = folder / _INDEX
    if index.exists():
        return _indexed_files(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    if pickle_files(folder):
        raise UnsupportedModelError(
            f"{model_id}: only pickled weights (.bin, .pt); serving reads safetensors, since "
            "loading a pickle can run code.",
            hint=f"Convert them with: tgi download {model_id}",
        )
    raise NotAModelError(
        f"{model_id}: the folder isn't a model (no .safetensors file).",
        hint=f"Weights in another form are fetched and converted by: tgi download {model_id}",
    )


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise CorruptModelError(f"{index.name}: weight_map must name files beside it.")
    missing = sorted(name for name in names if not (folder / name).exists())
    if missing:
        raise CorruptModelError(
            f"{index.name}: {len(missing)} of {len(names)} shards are missing, "
            f"such as {missing[0]}.",
            hint="Download the model again.",
        )
    return [folder / name for name in sorted(names)]
