"""Draw lengths in tokens from a distribution. Spec: bench.md section 7."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tgi_cli.errors import UsageError
from tgi_cli.runtime.config.bench.length_forms import MAX_TOKENS, Lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_FILE_BYTES = 64 << 20


class LengthSampler:
    """Draws from `Lengths`. Raises `UsageError` for a file that can't be read as lengths."""

    def __init__(self, lengths: Lengths) -> None:
        self._lengths = lengths
        self._recorded = _read_lengths(lengths.path) if lengths.kind == "file" else None

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return `count` lengths; asking for more later begins with the same ones."""
        lengths = self._lengths
        match lengths.kind:
            case "fixed":
                return np.full(count, lengths.value, dtype=np.int64)
            case "uniform":
                return generator.integers(lengths.low, lengths.high, size=count, endpoint=True)
            case "normal":
                drawn = generator.normal(lengths.center, lengths.spread, count)
            case "lognormal":
                drawn = lengths.center * np.exp(generator.normal(0.0, lengths.spread, count))
            case "choice":
                values, weights = np.array(lengths.choices, dtype=np.float64).T
                # One number a draw, by its place under the cumulated weights.
                bounds = np.cumsum(weights / weights.sum())
                places = np.searchsorted(bounds, generator.random(count), side="right")
                chosen: NDArray[np.int64] = values.astype(np.int64)
                return chosen[np.minimum(places, len(values) - 1)]
            case "file":
                assert self._recorded is not None
                return self._recorded[generator.integers(0, len(self._recorded), size=count)]
        return np.clip(np.rint(drawn), lengths.minimum, lengths.maximum).astype(np.int64)


def _read_lengths(path: str) -> NDArray[np.int64]:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    if len(raw) > _MAX_FILE_BYTES:
        raise UsageError(f"{path}: more than {_MAX_FILE_BYTES} bytes of lengths")
    words = raw.split()
    for word in words:
        if not (word.isdigit() and len(word) <= 9 and 1 <= int(word) <= MAX_TOKENS):
            shown = repr(word[:20].decode(errors="replace"))
            raise UsageError(f"{path}: {shown} is not a length from 1 to {MAX_TOKENS}")
    if not words:
        raise UsageError(f"{path} holds no lengths")
    return np.array([int(word) for word in words], dtype=np.int64)
