"""Attention packages that aren't ours: installed only where they are asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tgi_cli.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution, the module that it brings, and the versions whose signatures we call."""

    distribution: str
    module: str
    min_version: tuple[int, int]
    max_version: tuple[int, int]  # the first that is too new

    def load(self, asked: str) -> ModuleType:
        """Import the module that `--attention asked` needs.

        Raises:
            MissingExtraError: it isn't installed, of another version, or doesn't load here.
        """
        needed = f"{self.distribution} >={_dotted(self.min_version)},<{_dotted(self.max_version)}"
        message = f"`attention` is {asked}, which needs the package {needed}"
        hint = "Install it beside this server, or leave --attention out: paged needs nothing."
        try:
            installed = importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            raise MissingExtraError(f"{message}; it isn't installed.", hint=hint) from None
        if not self.min_version <= _release(installed) < self.max_version:
            raise MissingExtraError(f"{message}; {installed} is installed.", hint=hint)
        try:
            return importlib.import_module(self.module)
        except Exception as exc:  # whatever a library does that was built for another torch or GPU
            raise MissingExtraError(
                f"{message}; {installed} is installed but doesn't load: {type(exc).__name__}.",
                hint=hint,
            ) from exc


def _release(version: str) -> tuple[int, int]:
    """Return major and minor of "2.8.3.post1"; a part that is no number counts as 0."""
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    return parts[0], parts[1] if len(parts) > 1 else 0


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
