"""How people write a repository: `org/name`, `org/name@revision`, `org/name:Q4_K_M`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tgi_cli.errors import ModelNotFoundError, UsageError

_PART = r"[A-Za-z0-9_][\w.-]{0,95}"
_FORM = re.compile(
    rf"(?P<repository>{_PART}(?:/{_PART})?)"
    r"(?:@(?P<revision>[^:@\s]{1,200}))?(?::(?P<quantization>[\w.-]{1,64}))?",
    re.ASCII,
)
_REVISION = re.compile(r"[\w.+-][\w./+-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelReference:
    repository: str
    revision: str | None = None  # branch, tag or commit
    quantization: str | None = None  # picks one GGUF file


def parse_reference(text: str, revision: str | None = None) -> ModelReference:
    """Read a model's name; `revision` is the one given beside it.

    Raises:
        ModelNotFoundError: it can't be a name on the hub.
        UsageError: two revisions, or one that git wouldn't take.
    """
    found = _FORM.fullmatch(text)
    if found is None or ".." in found["repository"] or "--" in found["repository"]:
        raise ModelNotFoundError(f"{text[:100]!r} is neither a path nor a hub id (org/name).")
    own = found["revision"]
    if own is not None and revision not in (None, own):
        raise UsageError(f"two revisions are given: {own} in the model's name, and {revision}")
    asked = own or revision or None
    # It becomes the name of a file in the cache: git's own rules keep it inside its folder.
    if asked is not None and (not _REVISION.fullmatch(asked) or ".." in asked):
        raise UsageError(f"{asked[:100]!r} is not a branch, a tag or a commit")
    return ModelReference(found["repository"], asked, found["quantization"])
