"""The engine as a GPU's process builds it, over CPU tensors and interpreted kernels."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path

import msgspec
import pytest
import torch

from tests.builders.attention_packages import FakeFlashAttn, FakeFlashInfer
from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.engine import request, run_to_end
from tests.builders.fake_gpu import FakeGpu
from tests.builders.model import engine_config, make_runner
from tgi_cli.kernels import devices
from tgi_cli.runtime.config.attention import BLOCK_SIZES
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.gpu_parts import PARTS
from tgi_cli.runtime.engine.load_gpu import load
from tgi_cli.runtime.hub.locate import locate_model

PACKAGES = {
    "flash-attn": ("flash_attn", FakeFlashAttn, "2.8.3"),
    "flashinfer": ("flashinfer", FakeFlashInfer, "0.7.2"),
}


def pretend_installed(monkeypatch: pytest.MonkeyPatch, attention: str) -> None:
    name, make, version = PACKAGES[attention]
    real = importlib.import_module
    module = make()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    monkeypatch.setattr(
        importlib, "import_module", lambda each: module if each == name else real(each)
    )


@pytest.mark.parametrize(
    ("attention", "cuda_graphs"), [("paged", (2,)), ("flash-attn", (2,)), ("flashinfer", ())]
)
def test_a_gpus_engine_says_what_the_cpus_says(
    attention, cuda_graphs, tmp_path: Path, monkeypatch
) -> None:
    write_tiny_checkpoint(
        tmp_path,
        dtype=torch.float16,
        num_hidden_layers=1,
        head_dim=64,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    config = engine_config(
        locate_model(str(tmp_path)),
        max_total_tokens=64,
        max_step_tokens=16,
        max_running=2,
        num_blocks=4,
    )
    requests = [request(index, num_tokens=5 + 17 * index, max_new_tokens=3) for index in range(2)]
    plain = Engine(config, make_runner(config))
    for each in requests:
        plain.add(each)
    expected = run_to_end(plain)
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)
    if attention in PACKAGES:
        pretend_installed(monkeypatch, attention)
    config = msgspec.structs.replace(
        config,
        device="cuda",
        attention=attention,
        block_size=BLOCK_SIZES[attention],
        wiggle_room=1.0,
        cuda_graphs=cuda_graphs,
    )

    loaded = load(config, FakeGpu(), PARTS)
    for each in requests:
        loaded.engine.add(each)

    assert run_to_end(loaded.engine) == expected
    kernels = "triton" if attention == "paged" else attention
    graphs = ",".join(map(str, cuda_graphs)) or "none"
    assert f"attention: {kernels}; cuda graphs: {graphs}" in loaded.kernels
