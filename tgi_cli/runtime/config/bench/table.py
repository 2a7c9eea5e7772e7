"""THE table of `tgi bench`'s options: the command line, `--config` and the reference page are made
from it. Defaults are in `options.py`. Spec: bench.md section 14.
"""

from __future__ import annotations

from tgi_cli.runtime.config.bench.input_settings import ENDPOINT_SETTINGS, INPUT_SETTINGS
from tgi_cli.runtime.config.bench.load_settings import (
    DETAIL_SETTINGS,
    LENGTH_SETTINGS,
    LOAD_SETTINGS,
)
from tgi_cli.runtime.config.bench.output_settings import (
    CLIENT_SETTINGS,
    LIMIT_SETTINGS,
    OUTPUT_SETTINGS,
)
from tgi_cli.runtime.config.bench.setting import BenchSetting

BENCH_SETTINGS: tuple[BenchSetting, ...] = (
    *ENDPOINT_SETTINGS,
    *LOAD_SETTINGS,
    *DETAIL_SETTINGS,
    *LENGTH_SETTINGS,
    *INPUT_SETTINGS,
    *LIMIT_SETTINGS,
    *CLIENT_SETTINGS,
    *OUTPUT_SETTINGS,
)
