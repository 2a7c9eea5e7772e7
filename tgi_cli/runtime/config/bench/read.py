"""Join the flags of `tgi bench`, the file of `--config` and the environment's key into options.

A value comes from the flag, else from the file, else from `BenchOptions`.
Spec: bench.md section 14.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tgi_cli.errors import UsageError
from tgi_cli.runtime.config.bench.check import check_options
from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.config.bench.setting import BenchSetting
from tgi_cli.runtime.config.bench.table import BENCH_SETTINGS

KEY_VARIABLES = ("TGI_API_KEY", "OPENAI_API_KEY")
_BY_NAME = {setting.name: setting for setting in BENCH_SETTINGS}
_NEGATED = {f"no_{name}": name for name, setting in _BY_NAME.items() if setting.is_switch}
_MAX_FILE_BYTES = 1 << 20


def read_options(flags: Mapping[str, object], environ: Mapping[str, str]) -> BenchOptions:
    """Return the options of a run.

    `flags` holds parsed values by field, None where a flag was not given; of a repeated flag it
    holds the texts.

    Raises:
        UsageError: a value that can't be read, or options that don't go together.
    """
    given = {name: value for name, value in flags.items() if value not in (None, [], ())}
    path = given.pop("config", None)
    for name, value in given.items():
        if _BY_NAME[name].is_repeated:
            given[name] = _each(_BY_NAME[name], value, _BY_NAME[name].flag)
    if path is not None:
        from_file = _read_file(str(path))
        if "api_key" in given or "api_key_env" in given:  # either of them stands for the key
            from_file.pop("api_key", None)
            from_file.pop("api_key_env", None)
        given = from_file | given
    given["api_key"] = _api_key(given, environ)
    given.pop("api_key_env", None)
    if "burstiness" in given:
        given.setdefault("arrival", "gamma")
    options = msgspec.convert(given, BenchOptions, str_keys=True, strict=True)
    check_options(options, frozenset(given))
    return options


def _api_key(given: Mapping[str, object], environ: Mapping[str, str]) -> object:
    if "api_key" in given and "api_key_env" in given:
        raise UsageError("give --api-key or --api-key-env, not both")
    if "api_key_env" in given:
        key = environ.get(str(given["api_key_env"]))
        if not key:
            raise UsageError(f"--api-key-env: {given['api_key_env']} is not set")
        return key
    if "api_key" in given:
        return given["api_key"]
    return next((environ[name] for name in KEY_VARIABLES if environ.get(name)), None)


def _read_file(path: str) -> dict[str, object]:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        if len(raw) > _MAX_FILE_BYTES:
            raise UsageError(f"--config {path}: more than {_MAX_FILE_BYTES} bytes")
        loaded = tomllib.loads(raw.decode())
    except OSError as exc:
        raise UsageError(f"--config {path}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:  # not UTF-8, not TOML, or nested without end
        raise UsageError(f"--config {path}: not TOML: {exc}") from exc
    values: dict[str, object] = {}
    for key, value in loaded.items():
        name = key.replace("-", "_")
        is_negated = name in _NEGATED
        name = _NEGATED.get(name, name)
        setting = _BY_NAME.get(name)
        if setting is None or name == "config":
            raise UsageError(f"--config {path}: there is no option {key!r}")
        if name in values:
            raise UsageError(f"--config {path}: {key!r} is given twice")
        if is_negated and not isinstance(value, bool):
            raise UsageError(f"--config {path}: {key!r} is true or false")
        values[name] = not value if is_negated else _value(setting, value, f"{path}: {key}")
    return values


def _value(setting: BenchSetting, value: object, where: str) -> object:
    """Return the value of an option as TOML writes it: as the flag's text, or in TOML's own way."""
    if setting.is_switch:
        if not isinstance(value, bool):
            raise UsageError(f"--config {where}: not true or false")
        return value
    if isinstance(value, dict):
        if setting.name == "body":
            return value
        value = [f"{name}={_text(entry, where)}" for name, entry in value.items()]
    if setting.is_repeated:
        return _each(setting, value, f"--config {where}")
    if isinstance(value, list):
        value = ",".join(_text(entry, where) for entry in value)
    return _parsed(setting, _text(value, where), f"--config {where}")


def _each(setting: BenchSetting, value: object, where: str) -> object:
    entries: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    return tuple(_parsed(setting, _text(entry, where), where) for entry in entries)


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise UsageError(f"--config {where}: a {type(value).__name__} is not expected there")


def _parsed(setting: BenchSetting, text: str, where: str) -> object:
    try:
        return setting.parse(text)
    except ValueError as exc:
        raise UsageError(f"{where}: {exc}") from exc
