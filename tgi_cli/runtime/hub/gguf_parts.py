"""A GGUF model that is split into files: the first says what it is, and how many there are.

llama.cpp's `gguf-split` names them `NAME-00001-of-00003.gguf` and so on; each holds tensors.
"""

from __future__ import annotations

import re
from pathlib import Path

from tgi_cli.errors import NotAModelError
from tgi_cli.runtime.hub.gguf_file import GgufFile

PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def open_gguf(path: Path) -> list[GgufFile]:
    """Open a model's only file, or its first and with it all the others, in order.

    Raises:
        NotAModelError: one of several parts, and not the first.
        ModelNotFoundError, CorruptModelError, UnsupportedModelError: as `GgufFile`.
    """
    first = GgufFile(path)
    count = first.metadata.get("split.count", 1)
    if count == 1:
        return [first]
    name = PART_NAME.fullmatch(path.name)
    if name is None or int(name["number"]) != 1 or int(name["count"]) != count:
        raise NotAModelError(
            f"{path.name}: one of {str(count)[:9]} parts of a model, and not named as the first.",
            hint="Give the part whose name ends in -00001-of-….gguf, with the others beside it.",
        )
    others = (
        f"{name['stem']}-{number:05}-of-{name['count']}.gguf"
        for number in range(2, int(name["count"]) + 1)
    )
    return [first, *(GgufFile(path.with_name(other)) for other in others)]
