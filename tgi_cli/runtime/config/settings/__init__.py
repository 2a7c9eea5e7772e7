"""THE table of options: flag, variables, form and help. Nothing else names a variable.

The command line, docs/reference and the shell completions are made from it; defaults are in
`options.py`, and `env.py` reads the environment by it. Spec: launcher-options.md 1, 2 and 5.
"""

from __future__ import annotations

from tgi_cli.runtime.config.settings.devices import DEVICE_SETTINGS, SHARD_SETTINGS
from tgi_cli.runtime.config.settings.environment import ENVIRONMENT_SETTINGS
from tgi_cli.runtime.config.settings.limits import BATCHING_SETTINGS, LIMIT_SETTINGS
from tgi_cli.runtime.config.settings.model import MODEL_SETTINGS
from tgi_cli.runtime.config.settings.operation import COMPATIBILITY_SETTINGS, OPERATION_SETTINGS
from tgi_cli.runtime.config.settings.setting import Setting

SETTINGS: tuple[Setting, ...] = (
    *MODEL_SETTINGS,
    *LIMIT_SETTINGS,
    *BATCHING_SETTINGS,
    *DEVICE_SETTINGS,
    *OPERATION_SETTINGS,
    *COMPATIBILITY_SETTINGS,
    *SHARD_SETTINGS,
    *ENVIRONMENT_SETTINGS,
)

__all__ = ["SETTINGS", "Setting"]
