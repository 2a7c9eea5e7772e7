"""Load a model to compute on the CPU, and let it answer its warm-up."""

from __future__ import annotations

import logging

from tgi_cli.errors import CapacityError
from tgi_cli.kernels import native
from tgi_cli.kernels.paged_attention import choose as choose_attention
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.loaded import Loaded, too_many_prefill_tokens
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.models.loader import load_model
from tgi_cli.runtime.platforms import cpu

_log = logging.getLogger(__name__)


def load(config: EngineConfig) -> Loaded:
    """Load the model and run its first steps.

    Raises:
        CapacityError: memory ran out.
    """
    if not config.custom_kernels:
        native.turn_off()
    try:
        attention = choose_attention(
            config.model.num_heads, config.model.num_kv_heads, config.model.head_dim
        )
        model = load_model(config.model, config.weights, config.dtype, attention)
    except MemoryError as exc:
        raise CapacityError(
            "The model's weights don't fit this machine's memory.",
            hint="Use a smaller or a quantised model, or free memory.",
        ) from exc
    try:
        runner = Runner(config, model, attention)
        engine = Engine(config, runner)
    except MemoryError as exc:
        raise CapacityError(
            f"The system grants no memory for a KV cache of {config.num_blocks} blocks.",
            hint="Lower --max-batch-total-tokens.",
        ) from exc
    _log.info("Warming up model")
    try:
        engine.warm_up()
    except RuntimeError as exc:
        _log.exception("event=warm_up_failed")
        raise too_many_prefill_tokens(config) from exc
    return Loaded(config, engine, runner, model.num_bytes, cpu.describe_kernels())
