"""Everything of a model folder but its weights: copied from one, or written from what we know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tgi_cli.runtime.config.model_config import Dtype, TextAssets
from tgi_cli.runtime.hub.convert.record import RECORD_NAME
from tgi_cli.runtime.hub.json_files import MAX_BYTES, read_json

_SUFFIXES = {".json", ".txt", ".jinja", ".model", ".md"}  # never .py: no code from a repository
_NAMES = {"LICENSE", "NOTICE"}
_TEMPLATES = "additional_chat_templates"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def copy_small_files(source: Path, into: Path, *, dtype: Dtype | None = None) -> None:
    """Copy configuration, tokenizer, templates and licence. `dtype` is put into config.json."""
    for path in sorted(source.iterdir()):
        if _is_small_file(path):
            shutil.copyfile(path, into / path.name)
    if (source / _TEMPLATES).is_dir():
        (into / _TEMPLATES).mkdir()
        for path in sorted((source / _TEMPLATES).glob("*.jinja")):
            shutil.copyfile(path, into / _TEMPLATES / path.name)
    config = into / "config.json"
    if dtype is not None and config.exists():
        write_json(config, _with_dtype(read_json(config), dtype))


def copy_tokenizer(source: Path, into: Path) -> None:
    """Put the tokenizer of `source` in the place of the one in `into`, if it has one."""
    if (source / "tokenizer.json").exists():
        for name in _TOKENIZER_FILES:
            (into / name).unlink(missing_ok=True)
            if (source / name).exists():
                shutil.copyfile(source / name, into / name)


def write_text_assets(text: TextAssets, into: Path, pad_token: str | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json, the chat templates in it."""
    templates: Any = [{"name": n, "template": t} for n, t in sorted(text.chat_templates.items())]
    if text.chat_templates.keys() == {"default"}:
        templates = text.chat_templates["default"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text.bos_token,
        "eos_token": text.eos_token,
        "pad_token": pad_token or text.eos_token,
        "padding_side": "left",  # a decoder continues the end of its prompt
        "model_max_length": text.model_max_length,
        "chat_template": templates or None,
    }
    (into / "tokenizer.json").write_text(text.tokenizer_json, "utf-8")
    write_json(into / "tokenizer_config.json", {k: v for k, v in config.items() if v is not None})


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _is_small_file(path: Path) -> bool:
    is_wanted = path.suffix in _SUFFIXES or path.name in _NAMES
    is_of_weights = path.name == RECORD_NAME or path.name.endswith(".index.json")
    return path.is_file() and is_wanted and not is_of_weights and path.stat().st_size <= MAX_BYTES


def _with_dtype(config: dict[str, Any], dtype: Dtype) -> dict[str, Any]:
    """Return the configuration saying the weights' new type, under the key it uses."""
    key = "dtype" if "dtype" in config else "torch_dtype"
    return {**config, key: dtype}
