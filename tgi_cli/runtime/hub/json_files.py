"""JSON files of a model repository: bounded in size, and an object at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tgi_cli.errors import CorruptModelError, ModelNotFoundError

MAX_BYTES = 200_000_000  # a tokenizer.json of a large vocabulary has 30 MB


def read_text(path: Path) -> str:
    """Return the file's text. Raises `CorruptModelError` if it is too large or not UTF-8."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CorruptModelError(f"{path.name}: larger than {MAX_BYTES} bytes.")
        return path.read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise CorruptModelError(f"{path.name}: not UTF-8.") from exc
    except OSError as exc:
        raise ModelNotFoundError(f"{path}: can't be read ({exc.strerror}).") from exc


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in the file. Raises `CorruptModelError` if it holds anything else."""
    try:
        value = msgspec.json.decode(read_text(path))
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise CorruptModelError(f"{path.name}: not JSON ({exc}).") from exc
    if not isinstance(value, dict):
        raise CorruptModelError(f"{path.name}: not a JSON object.")
    return value
