"""Latencies as HDR histograms: `.hlog` and `.hgrm` files, and base64 in `result.json`.

Microseconds, 1 us to 1 h, three digits. The library is in the extra `bench`; without it there are
no such files, and the report says so. Gil Tene's HdrHistogram, log format 1.3.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 3_600_000_000, 3


def is_available() -> bool:
    """Whether the library is installed."""
    try:
        import hdrh.histogram  # noqa: F401
    except ImportError:
        return False
    return True


def encode(values_s: np.ndarray) -> str:
    """Return the compressed histogram of the finite values, V2, base64."""
    encoded: bytes = _histogram(values_s).encode()
    return encoded.decode()


def write_files(folder: Path, name: str, values_s: np.ndarray, w0_s: float, w1_s: float) -> None:
    """Write `name.hlog` and `name.hgrm`; `w0_s` and `w1_s` are seconds of the wall clock."""
    from hdrh.log import HistogramLogWriter

    histogram = _histogram(values_s)
    with (folder / f"{name}.hlog").open("w", encoding="ascii") as out:
        writer = HistogramLogWriter(out)
        writer.output_log_format_version()
        # The library's own way to say this fails in Python 3.
        started = datetime.fromtimestamp(w0_s, tz=UTC).isoformat()
        out.write(f"#[StartTime: {w0_s:.3f} (seconds since epoch), {started}]\n")
        writer.output_legend()
        writer.output_interval_histogram(histogram, w0_s, w1_s)
    with (folder / f"{name}.hgrm").open("wb") as raw:
        histogram.output_percentile_distribution(raw, 1000.0)  # milliseconds, as its tools expect


def _histogram(values_s: np.ndarray) -> Any:
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
    finite = values_s[np.isfinite(values_s)]
    us = np.clip(np.rint(finite * 1e6), _LOWEST_US, _HIGHEST_US).astype(np.int64)
    for value, count in zip(
        *map(np.ndarray.tolist, np.unique(us, return_counts=True)), strict=True
    ):
        histogram.record_value(value, count)
    return histogram
