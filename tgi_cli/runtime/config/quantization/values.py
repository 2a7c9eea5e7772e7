"""Values that the configurations of several formats have."""

from __future__ import annotations

from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.module_names import MAX_PATTERNS, patterns_of

MAX_GROUP_SIZE = 1 << 18
_MAX_NAMES = 1 << 16
_MAX_NAME = 512


def check_bits(fields: Fields, key: str, allowed: tuple[int, ...]) -> int:
    bits = fields.size(key, limit=32)
    if bits not in allowed:
        *others, last = map(str, allowed)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise fields.wrong(key, bits, expected)
    return bits


def group_size_of(fields: Fields, key: str) -> int | None:
    """Return the size of a group; -1 in the file, one group of all input features, is None."""
    if fields.get(key) == -1:
        return None
    return fields.size(key, limit=MAX_GROUP_SIZE)


def module_names(fields: Fields, key: str) -> tuple[str, ...]:
    """Return a list of names, or of lists of names; none if it is absent."""
    value = fields.get(key)
    return () if value is None else check_names(fields, key, value)


def check_names(fields: Fields, key: str, value: object) -> tuple[str, ...]:
    """Return `value`, what `key` says in other words, if it is a list of names, or of such lists.

    Raises:
        CorruptModelError: it isn't one.
        UnsupportedModelError: a pattern has parts that aren't read here.
    """
    entries = value if isinstance(value, list) else [None]
    flat = [name for entry in entries for name in (entry if isinstance(entry, list) else [entry])]
    names = [name for name in flat if isinstance(name, str) and 0 < len(name) <= _MAX_NAME]
    if len(names) < len(flat) or len(names) > _MAX_NAMES:
        raise fields.wrong(key, value, f"a list of at most {_MAX_NAMES} names")
    patterns = [name for name in names if name.startswith("re:")]
    if len(patterns) > MAX_PATTERNS:
        raise fields.wrong(key, f"{len(patterns)} patterns", f"at most {MAX_PATTERNS} patterns")
    for pattern in patterns:
        try:
            patterns_of(pattern)
        except ValueError as exc:
            raise unsupported(fields, f"{key}: {exc}") from exc
    return tuple(names)


def refuse_if_set(fields: Fields, key: str, what: str) -> None:
    """Raise `UnsupportedModelError` unless `key` is absent, null, false or empty."""
    if fields.get(key):
        raise unsupported(fields, f"{key!r} ({what}) isn't supported")


def unsupported(fields: Fields, what: str) -> UnsupportedModelError:
    """Return the error for a variant of a format that this build doesn't read."""
    return UnsupportedModelError(
        f"{fields.source}: {what}.",
        hint="Use another version of the model, or make one of the original with `tgi quantize`.",
    )
