"""What loading a model gives, on whichever device."""

from __future__ import annotations

from dataclasses import dataclass

from tgi_cli.errors import CapacityError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.runner import StepRunner


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine that has answered its warm-up."""

    config: EngineConfig  # with the blocks that it has
    engine: Engine
    runner: StepRunner
    weights_bytes: int
    kernels: str  # which compute, for the start log


def too_many_prefill_tokens(config: EngineConfig) -> CapacityError:
    """Return TGI's error for a warm-up that runs out of memory."""
    return CapacityError(
        f"Not enough memory to handle {config.max_step_tokens} prefill tokens. "
        "You need to decrease `--max-batch-prefill-tokens`"
    )
