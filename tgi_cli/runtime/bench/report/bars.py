"""A distribution as one line of bars in eighths of a block, or of `#` where there is only ASCII."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tgi_cli.runtime.bench.result import Distribution

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*%#"


def bars(distribution: Distribution, width: int = 20, *, is_ascii: bool = False) -> str:
    """Return `width` bars over the bins, the highest one whole; a bin with one value is seen."""
    levels = _ASCII if is_ascii else _BLOCKS
    groups = merge(distribution.counts, width)
    top = max(groups, default=0)
    return "".join(levels[_level(count, top, len(levels) - 1)] for count in groups)


def sparkline(values: Sequence[float], width: int, *, is_ascii: bool = False) -> str:
    """Return the newest `width` values as bars."""
    levels = _ASCII if is_ascii else _BLOCKS
    newest = values[-width:]
    top = max(newest, default=0.0)
    return "".join(levels[_level(value, top, len(levels) - 1)] for value in newest)


def merge(counts: Sequence[int], width: int) -> list[int]:
    """Return `counts` in `width` groups, as even as can be, none of them lost."""
    edges = [len(counts) * i // width for i in range(width + 1)]
    return [sum(counts[start:end]) for start, end in itertools.pairwise(edges)]


def _level(value: float, top: float, highest: int) -> int:
    if value <= 0 or top <= 0:
        return 0
    return max(1, round(highest * value / top))
