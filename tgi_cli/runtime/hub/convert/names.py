"""Which files of a folder hold pickled weights, and what their safetensors are called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tgi_cli.errors import ConversionError

# The first rule that matches any file of a folder decides: other files there are other copies.
_RULES = (
    (re.compile(r"pytorch_model\.bin"), "model.safetensors"),
    (re.compile(r"pytorch_model-(\d{5}-of-\d{5})\.bin"), r"model-\1.safetensors"),
    (re.compile(r"model\.(?:bin|pt|pth)"), "model.safetensors"),
    (re.compile(r"consolidated\.(\d+)\.(?:pt|pth)"), r"consolidated.\1.safetensors"),
    (re.compile(r"consolidated\.(?:pt|pth)"), "consolidated.safetensors"),
    (re.compile(r"adapter_model\.bin"), "adapter_model.safetensors"),
    (re.compile(r"(.+)\.(?:bin|pt|pth)"), r"\1.safetensors"),
)
_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\..*")
# What trainers write beside the weights.
_SKIPPED = ("arguments", "args", "training", "optimizer", "scheduler", "rng_state")


def safetensors_name(name: str) -> str | None:
    """Return the name for the safetensors of a pickle file; None if it isn't one of weights."""
    if any(word in name for word in _SKIPPED):
        return None
    for pattern, replacement in _RULES:
        if match := pattern.fullmatch(name):
            return match.expand(replacement)
    return None


def pickle_files(folder: Path) -> dict[str, str]:
    """Return the pickled weights of a folder and the names of their safetensors; may be empty.

    Raises:
        ConversionError: shards are missing.
    """
    return pickle_names(path.name for path in folder.iterdir() if path.is_file())


def pickle_names(names: Iterable[str]) -> dict[str, str]:
    """Return those of a folder's names that hold its weights, with the names they will get.

    Raises:
        ConversionError: shards are missing.
    """
    names = [name for name in sorted(names) if safetensors_name(name) is not None]
    for pattern, replacement in _RULES:
        found = {
            name: match.expand(replacement) for name in names if (match := pattern.fullmatch(name))
        }
        if found:
            _check_shards(list(found))
            return found
    return {}


def _check_shards(names: list[str]) -> None:
    for name in names:
        match = _SHARD.fullmatch(name)
        if match is None:
            continue
        total = match.group(2)
        present = {m.group(1) for n in names if (m := _SHARD.fullmatch(n)) and m.group(2) == total}
        for number in range(1, int(total) + 1):
            if f"{number:05}" not in present:
                missing = name.replace(f"-{match.group(1)}-of-", f"-{number:05}-of-")
                raise ConversionError(
                    f"{missing}: this shard is missing; {len(present)} of {int(total)} are there.",
                    hint="Download the model again; all of its shards are needed.",
                )
