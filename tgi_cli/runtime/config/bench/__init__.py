"""The options of `tgi bench`: their forms, their table, and how flags and a file make one set.

Spec: bench.md section 14.
"""

from __future__ import annotations

from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.config.bench.read import read_options
from tgi_cli.runtime.config.bench.setting import BenchSetting
from tgi_cli.runtime.config.bench.table import BENCH_SETTINGS
from tgi_cli.runtime.config.bench.write import redacted_argv, run_toml, shown_options

__all__ = [
    "BENCH_SETTINGS",
    "BenchOptions",
    "BenchSetting",
    "read_options",
    "redacted_argv",
    "run_toml",
    "shown_options",
]
