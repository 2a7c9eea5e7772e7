"""The layer that calibration runs against transformers' own, on tiny random checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.quantize.forward import LayerForward, map_windows

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral, windowed": ("mistral", {"sliding_window": 11}),
    "qwen2, windowed after the first layer": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_one_after_the_other_are_transformers_own(case: str, tmp_path: Path) -> None:
    family, overrides = CASES[case]
    reference = write_tiny_checkpoint(tmp_path, family, **overrides)
    config = locate_model(str(tmp_path)).config
    weights = reference.state_dict()
    ids = torch.arange(3 * 29).view(3, 29) * 37 % 301
    x = weights["model.embed_tokens.weight"][ids]

    with torch.no_grad():
        expected = reference.model(ids, output_hidden_states=True).hidden_states
        for index in range(config.num_layers - 1):  # the last one's are given after the final norm
            prefix = f"model.layers.{index}."
            layer = {
                name.removeprefix(prefix): tensor
                for name, tensor in weights.items()
                if name.startswith(prefix)
            }
            forward = LayerForward(config, 29, index)
            map_windows(lambda part: forward(layer, part), x, x, 2)  # noqa: B023

            torch.testing.assert_close(x, expected[index + 1], rtol=1e-4, atol=1e-4)
