"""Tokenizer, special tokens and chat templates of a folder in Hugging Face's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tgi_cli.errors import ModelNotFoundError, UnsupportedModelError
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.hub.json_files import read_json, read_text

_PLACEHOLDER_LENGTH = 1 << 40  # transformers writes 1e30 for "no limit"


def read_text_assets(folder: Path, tokenizer_config_path: str | None) -> TextAssets:
    """Read what turns text into ids and back.

    Raises:
        UnsupportedModelError: there is no tokenizer.json.
        ModelNotFoundError: `tokenizer_config_path` doesn't exist.
        CorruptModelError: a file that isn't what its name says.
    """
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        raise UnsupportedModelError(
            f"{folder.name}: no tokenizer.json; this build needs the tokenizer in that format.",
            hint="Load the tokenizer with transformers and save_pretrained it beside the weights.",
        )
    if tokenizer_config_path is None:
        config = _read_if_there(folder / "tokenizer_config.json")
        templates = _chat_templates(folder, config)
    else:
        config = _read_given(tokenizer_config_path)
        # A template that was asked for by name comes before those that lie beside the model.
        templates = _templates_in(config) or _chat_templates(folder, config)
    return TextAssets(
        tokenizer_json=read_text(tokenizer),
        bos_token=_token(config.get("bos_token")),
        eos_token=_token(config.get("eos_token")),
        chat_templates=templates,
        model_max_length=_max_length(config),
    )


def with_tokenizer_config(text: TextAssets, tokenizer_config_path: str | None) -> TextAssets:
    """Return a GGUF file's assets with what the given tokenizer_config.json says in their place.

    Raises:
        ModelNotFoundError: `tokenizer_config_path` doesn't exist.
        CorruptModelError: it isn't what its name says.
    """
    if tokenizer_config_path is None:
        return text
    config = _read_given(tokenizer_config_path)
    return msgspec.structs.replace(
        text,
        bos_token=_token(config.get("bos_token")) or text.bos_token,
        eos_token=_token(config.get("eos_token")) or text.eos_token,
        chat_templates=_templates_in(config) or text.chat_templates,
        model_max_length=_max_length(config) or text.model_max_length,
    )


def eos_token_ids(folder: Path, config: Mapping[str, Any], text: TextAssets) -> tuple[int, ...]:
    """Return the ids that end a sequence, from the first file that names any."""
    generation = folder / "generation_config.json"
    sources: list[Mapping[str, Any]] = [read_json(generation)] if generation.exists() else []
    for source in (*sources, config):
        ids = source.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [ids]
        found = tuple(i for i in ids if type(i) is int and i >= 0)
        if found:
            return found
    if text.eos_token is None:
        return ()
    from tokenizers import Tokenizer

    index = Tokenizer.from_str(text.tokenizer_json).token_to_id(text.eos_token)
    return () if index is None else (index,)


def _read_given(tokenizer_config_path: str) -> dict[str, Any]:
    path = Path(tokenizer_config_path).expanduser()
    if not path.is_file():
        raise ModelNotFoundError(
            f"{tokenizer_config_path}: no such file (--tokenizer-config-path)."
        )
    return read_json(path)


def _max_length(config: Mapping[str, Any]) -> int | None:
    length: Any = config.get("model_max_length")
    is_real = type(length) in (int, float) and 0 < length < _PLACEHOLDER_LENGTH
    return int(length) if is_real else None


def _token(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return templates by name, from the first place that has any (http-api.md section 10.3)."""
    named = {
        path.stem: read_text(path)
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        return {**named, "default": read_text(jinja)}
    for source in (
        _read_if_there(folder / "chat_template.json"),
        config,
        _read_if_there(folder / "processor_config.json"),
    ):
        if templates := _templates_in(source):
            return {**templates, **named}
    return named


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _templates_in(source: Mapping[str, Any]) -> dict[str, str]:
    template = source.get("chat_template")
    if isinstance(template, str):
        return {"default": template}
    entries = template if isinstance(template, list) else []
    return {
        entry["name"]: entry["template"]
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("template"), str)
    }
