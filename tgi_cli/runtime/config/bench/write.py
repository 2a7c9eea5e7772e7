"""Write the options of a run: as TOML to run it again, and for people. Secrets are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.config.bench.setting import BenchSetting
from tgi_cli.runtime.config.bench.table import BENCH_SETTINGS

HIDDEN = "<redacted>"
_SECRET_FLAGS = frozenset(
    flag
    for setting in BENCH_SETTINGS
    if setting.is_secret
    for flag in (setting.flag, setting.short_flag)
    if flag is not None
)


def run_toml(options: BenchOptions) -> str:
    """Return a file for `--config` that asks for the same run."""
    lines = ["# Run it again with: tgi bench --config run.toml"]
    for setting in BENCH_SETTINGS:
        value = getattr(options, setting.name, None)
        if not setting.is_kept or value == setting.default:
            continue
        lines.append(f"{setting.flag[2:]} = {_toml(_plain(setting, value))}")
    lines += [f"# left out, it may be secret: --header {name}:…" for name, _ in options.header]
    if options.api_key is not None:
        lines.append("# left out: the key")
    return "\n".join(lines) + "\n"


def shown_options(options: BenchOptions) -> dict[str, Any]:
    """Return all options by flag for `result.json`; values that may be secret are hidden."""
    shown: dict[str, Any] = {}
    for setting in BENCH_SETTINGS:
        if setting.name == "header":
            shown["header"] = [f"{name}: {HIDDEN}" for name, _ in options.header]
        elif not setting.is_secret and hasattr(options, setting.name):
            value = getattr(options, setting.name)
            is_unset = value is None or (value == () and not setting.is_repeated)
            shown[setting.flag[2:]] = None if is_unset else _plain(setting, value)
    return shown


def redacted_argv(argv: Sequence[str]) -> list[str]:
    """Return the arguments without keys and without the values of headers."""
    return list(_redacted(argv))


def _redacted(argv: Sequence[str]) -> Iterator[str]:
    is_secret = False
    for word in argv:
        flag, sign, _ = word.partition("=")
        if is_secret:
            yield HIDDEN
        elif flag in _SECRET_FLAGS and sign:
            yield f"{flag}={HIDDEN}"
        elif word[:2] in _SECRET_FLAGS and len(word) > 2:  # -HNAME:VALUE
            yield f"{word[:2]}{HIDDEN}"
        else:
            yield word
        is_secret = not is_secret and word in _SECRET_FLAGS


def _plain(setting: BenchSetting, value: object) -> object:
    """Return a value in the words of TOML and JSON; reading it again gives the same."""
    if setting.is_repeated:
        assert isinstance(value, tuple), value
        return [setting.write(entry) for entry in value]
    if type(value) in (bool, int, str):
        return value
    return setting.write(value)


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # A basic string of TOML escapes what JSON does, and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
