"""A whole engine on a GPU from its start, by Triton: the answers don't depend on the company."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.engine import request
from tests.builders.fake_gpu import FakeGpu
from tests.builders.model import engine_config
from tgi_cli.kernels import devices
from tgi_cli.runtime.engine.gpu_parts import PARTS
from tgi_cli.runtime.engine.load_gpu import load
from tgi_cli.runtime.engine.loaded import Loaded
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.ipc.messages import SequenceOutput

SIZES = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
LENGTHS = (1, 35)


def load_tiny(folder: Path) -> Loaded:
    config = engine_config(
        locate_model(str(folder)),
        device="cuda",
        max_total_tokens=64,
        max_step_tokens=48,
        num_blocks=9,
        max_running=2,
        cuda_graphs=(2,),
    )
    with torch.no_grad():
        return load(config, FakeGpu(), PARTS)


def answers(loaded: Loaded, request_ids: list[int]) -> dict[int, list[SequenceOutput]]:
    """Let requests be answered together; return what each is told."""
    told: dict[int, list[SequenceOutput]] = {}
    for request_id in request_ids:
        loaded.engine.add(
            request(request_id, num_tokens=LENGTHS[request_id], max_new_tokens=3, ignore_eos=True)
        )
    while loaded.engine.has_work:
        step = loaded.engine.step()
        assert not step.failures
        for output in step.outputs:
            told.setdefault(output.request_id, []).append(output)
    return told


def test_requests_are_told_the_same_alone_and_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)
    write_tiny_checkpoint(tmp_path, dtype=torch.float16, **SIZES)
    loaded = load_tiny(tmp_path)

    together = answers(loaded, [0, 1])

    alone = answers(loaded, [0]) | answers(loaded, [1])
    assert together == alone
    assert [len(outputs) for outputs in together.values()] == [3, 3]
    assert loaded.kernels.endswith("attention: triton; cuda graphs: 2")
