"""Read the files that a run takes its inputs from. What can't be read is a usage error.

Files are read whole, since inputs are drawn from all of them, and so have a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tgi_cli.errors import UsageError

MAX_FILE_BYTES = 1 << 30
JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
JsonObject = dict[str, JsonValue]


def read_text(path: str) -> str:
    """Return a file's text. Raises `UsageError`."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise UsageError(f"{path}: more than {MAX_FILE_BYTES >> 30} GiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path}: not UTF-8 at byte {exc.start}") from exc


def json_objects(path: str, text: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield the objects of a JSON array or of JSON lines, each with its place for errors.

    Raises:
        UsageError: what isn't JSON, or not an object.
    """
    if text.lstrip().startswith("["):
        rows = _decoded(text, path)
        assert isinstance(rows, list), type(rows)
        for number, row in enumerate(rows):
            where = f"{path}, entry {number}"
            yield where, _object(row, where)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _object(_decoded(line, where), where)


def _decoded(text: str, where: str) -> JsonValue:
    try:
        value: JsonValue = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as exc:
        raise UsageError(f"{where}: not JSON: {exc}") from exc
    return value


def _object(value: JsonValue, where: str) -> JsonObject:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not an object")
    return value


def whole_number(row: JsonObject, name: str, where: str, *, limit: int) -> int | None:
    """Return a field that is a number from 1 to `limit`, None if it isn't there."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 1 <= value <= limit:
        raise UsageError(f"{where}: {name!r} is not a whole number from 1 to {limit}")
    return value


def messages_of(row: JsonObject, where: str) -> list[dict[str, JsonValue]] | None:
    """Return a row's `messages`, None if it has none; each must have a role."""
    found = row.get("messages")
    if found is None:
        return None
    if not isinstance(found, list) or not found:
        raise UsageError(f"{where}: 'messages' is not a list of messages")
    messages = []
    for message in found:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UsageError(f"{where}: a message without a role")
        messages.append(message)
    return messages


_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
          "assistant": "assistant", "model": "assistant", "system": "system"}  # fmt: skip


def shared_messages_of(row: JsonObject, where: str) -> list[dict[str, JsonValue]] | None:
    """Return the turns of a ShareGPT row as messages, None if it is no such row."""
    turns = row.get("conversations")
    if turns is None:
        return None
    if not isinstance(turns, list):
        raise UsageError(f"{where}: 'conversations' is not a list of turns")
    messages: list[dict[str, JsonValue]] = []
    for turn in turns:
        speaker = turn.get("from") if isinstance(turn, dict) else None
        value = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(speaker, str) or not isinstance(value, str):
            raise UsageError(f"{where}: a turn without 'from' and 'value'")
        messages.append({"role": _ROLES.get(speaker, speaker), "content": value})
    return messages


def text_of(message: dict[str, JsonValue]) -> str:
    """Return the text of a message, its parts put together."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))
