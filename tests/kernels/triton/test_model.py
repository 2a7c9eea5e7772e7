"""A whole model by Triton's kernels, interpreted on CPU tensors: the wiring, and the promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.model import engine_config
from tgi_cli.kernels import devices
from tgi_cli.kernels.paged_attention.gathered import GatheredAttention
from tgi_cli.runtime.engine.determinism import Stepper
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.layers.placement import on_gpu
from tgi_cli.runtime.models.loader import load_model

SIZES = {
    "vocab_size": 301,
    "hidden_size": 72,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
PROMPT = [(7 * i * i + 3) % 301 for i in range(37)]


class Wide(GatheredAttention):
    def attend(self, q, cache, plan, scale, soft_cap=0.0):
        return super().attend(q.float(), cache, plan, scale).to(q.dtype)


@pytest.fixture(autouse=True)
def _everything_is_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)


def runner_of(folder: Path, dtype: torch.dtype, name: str) -> tuple[Runner, object]:
    located = locate_model(str(folder))
    config = engine_config(located, dtype=name, max_total_tokens=128, num_blocks=20)
    placement = on_gpu(torch.device("cpu"), dtype)
    attention = Wide()
    with torch.no_grad():
        model = load_model(config.model, config.weights, config.dtype, attention, placement)
    return Runner(config, model, attention), config


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_logits_are_near_those_of_transformers(tmp_path: Path, family: str) -> None:
    reference = write_tiny_checkpoint(tmp_path, family, dtype=torch.bfloat16, **SIZES)
    runner, config = runner_of(tmp_path, torch.bfloat16, "bfloat16")
    stepper = Stepper(runner, config)
    seq = stepper.add(PROMPT)

    logits = stepper.step([(seq, len(PROMPT))])[0]

    with torch.no_grad():
        expected = reference(torch.tensor([PROMPT])).logits[0, -1]
    assert logits.dtype == torch.float32
    assert float((logits - expected).abs().max()) < 0.04 * float(expected.std())
