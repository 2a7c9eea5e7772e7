"""What a shell offers for a model's name: those in the hub's cache, and files beside the user.

And Typer's script for zsh, mended: as an installed file it only defined its function when the tab
key was pressed for the first time, and offered nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from typer import _completion_shared as scripts

_PREFIX = "models--"
_DEMO = "demo"
# zsh runs an installed file as the function that it is named for; the shipped script is sourced.
_ZSH_AT_ONCE = """
if [[ $funcstack[1] == _%(prog_name)s ]]; then
  %(complete_func)s
fi
"""


def mend_zsh_script() -> None:
    """Have an installed script complete at the first press of the tab key too."""
    scripts._completion_scripts["zsh"] = scripts.COMPLETION_SCRIPT_ZSH + _ZSH_AT_ONCE


def complete_model(incomplete: str) -> list[str]:
    """Return the models whose name begins so: `demo`, the cached ones, folders and GGUF files."""
    return models(incomplete, os.environ)


def models(incomplete: str, environ: Mapping[str, str]) -> list[str]:
    names = [_DEMO, *sorted(set(_cached(environ)))]
    return [name for name in names if name.startswith(incomplete)] + _local(incomplete)


def _cached(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the ids of the repositories in the cache, in the layouts that a server looks into."""
    home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    named = environ.get("HUGGINGFACE_HUB_CACHE") or environ.get("HF_HUB_CACHE")
    for folder in [Path(named)] if named else [home / "hub", home]:
        try:
            entries = [entry.name for entry in folder.iterdir() if entry.is_dir()]
        except OSError:
            continue
        for entry in entries:
            if entry.startswith(_PREFIX):
                yield entry.removeprefix(_PREFIX).replace("--", "/")


def _local(incomplete: str) -> list[str]:
    folder, _, start = incomplete.rpartition("/")
    where = Path(f"{folder}/" if "/" in incomplete else ".").expanduser()
    before = f"{folder}/" if "/" in incomplete else ""
    try:
        entries = sorted(where.iterdir())
    except OSError:
        return []
    is_hidden_wanted = start.startswith(".")
    return [
        f"{before}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if entry.name.startswith(start)
        and (is_hidden_wanted or not entry.name.startswith("."))
        and (entry.is_dir() or entry.suffix == ".gguf")
    ]
