"""Whether what the user calls a model is a path on this machine or a name on the hub."""

from __future__ import annotations

import os
from pathlib import Path

from tgi_cli.errors import ModelNotFoundError


def local_path(model_id: str) -> Path | None:
    """Return the file or folder that is meant; None for a name that only the hub may know.

    Raises:
        ModelNotFoundError: it can only be a path, and nothing is there.
    """
    # The functions of `os.path` answer where those of `Path` raise: no such user, a name too long.
    path = Path(os.path.expanduser(model_id))
    if model_id and os.path.exists(path):
        return path
    name = model_id.partition("@")[0]  # a revision may have slashes of its own
    if path.suffix == ".gguf" or name.startswith((".", "~", os.sep)) or name.count("/") > 1:
        raise ModelNotFoundError(
            f"{model_id[:200]}: no such file or folder.",
            hint="Check the path; a model on the hub is named org/name.",
        )
    return None
