"""Bound what a JSON body may become before it is decoded.

Two megabytes of `[],[],[],…` are fifty of Python objects, and a thousand brackets in a row are a
deep recursion for whoever walks the result. Both are counted here on the bytes, by a few passes
that run in C: about a millisecond per megabyte, and less for an ordinary body, which has so few
commas and brackets that nothing else needs a look.
"""

from __future__ import annotations

MAX_DEPTH = 64  # arrays and objects within each other
MAX_VALUES = 50_000  # strings, arrays and objects
MAX_NUMBERS = 250_000  # and whatever else stands between two commas

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]"))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


class TooDeep(Exception):
    """More levels than `MAX_DEPTH`."""


class TooManyValues(Exception):
    """More values than allowed."""


def check_bounds(raw: bytes, max_numbers: int = MAX_NUMBERS) -> None:
    """Return if `raw`, which may be any bytes, is safe to decode.

    Brackets and commas within strings don't count.

    Raises:
        TooDeep, TooManyValues: it isn't.
    """
    num_brackets = raw.count(b"[") + raw.count(b"{")
    if num_brackets <= MAX_DEPTH and raw.count(b",") <= MAX_VALUES:
        return
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    num_strings = unescaped.count(b'"') // 2
    if num_strings > MAX_VALUES:
        raise TooManyValues
    outside = b"".join(unescaped.split(b'"')[::2])
    brackets = outside.translate(_BRACES_TO_BRACKETS).translate(None, _ALL_BUT_BRACKETS)
    if _is_deeper(brackets[: 2 * MAX_VALUES]):  # more than these are too many in any case
        raise TooDeep
    if num_strings + brackets.count(b"[") > MAX_VALUES or outside.count(b",") > max_numbers:
        raise TooManyValues


def _is_deeper(brackets: bytes) -> bool:
    """Return whether removing the innermost pairs `MAX_DEPTH` times leaves an opening bracket.

    What never pairs up is no JSON, and the parser will say so, unless it is deep before that.
    """
    for _ in range(MAX_DEPTH):
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    return brackets.count(b"[") > MAX_DEPTH or b"[]" in brackets
