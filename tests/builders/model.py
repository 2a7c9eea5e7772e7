"""A real engine in this process, from a checkpoint on disk or the demo model."""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from tests.builders.engine import run_to_end
from tgi_cli.kernels.paged_attention import choose
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.determinism import Stepper
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.hub.locate import LocatedModel
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.models.loader import load_model
from tgi_cli.runtime.types import SamplingParams


def engine_config(
    located: LocatedModel, *, keeps_grid: bool = False, **changes: Any
) -> EngineConfig:
    fields: dict[str, Any] = {
        "model": located.config,
        "weights": msgspec.structs.replace(located.weights, keeps_grid=keeps_grid),
        "eos_token_ids": located.eos_token_ids,
        "device": "cpu",
        "dtype": located.config.checkpoint_dtype,
        "block_size": 32,
        "num_blocks": 600,
        "max_step_tokens": 512,
        "max_running": 32,
        "max_total_tokens": 1024,
        "num_threads": 2,
    }
    fields |= changes
    fields.setdefault("kv_cache_dtype", fields["dtype"])
    return EngineConfig(**fields)


def make_runner(config: EngineConfig) -> Runner:
    model = config.model
    attention = choose(model.num_heads, model.num_kv_heads, model.head_dim)
    with torch.no_grad():
        loaded = load_model(model, config.weights, config.dtype, attention)
    return Runner(config, loaded, attention)


def prompt_logits(config: EngineConfig, prompt_ids: list[int], chunk: int) -> torch.Tensor:
    """Prefill `prompt_ids` in chunks; return the logits [V] after the last."""
    stepper = Stepper(make_runner(config), config)
    seq = stepper.add(prompt_ids)
    while seq.num_uncomputed_tokens:
        logits = stepper.step([(seq, min(chunk, seq.num_uncomputed_tokens))])
    return logits[seq.request_id]


def generate(
    engine: Engine, prompts: list[list[int]], max_new_tokens: int, **sampling: Any
) -> list[list[int]]:
    """Return what the engine generates for all prompts in one batch."""
    for index, prompt in enumerate(prompts):
        engine.add(NewRequest(index, prompt, max_new_tokens, SamplingParams(**sampling)))
    tokens = run_to_end(engine)
    return [tokens[index] for index in range(len(prompts))]
