"""The engine as a GPU's process builds it, over CPU tensors and interpreted kernels."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.engine import request, run_to_end
from tests.builders.fake_gpu import FakeGpu
from tests.builders.gpu_model import ToyDeviceSampler
from tests.builders.model import engine_config, make_runner
from tgi_cli.kernels import devices
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.load_gpu import Parts, load
from tgi_cli.runtime.engine.sampling.launched import MixedSampler
from tgi_cli.runtime.engine.sampling.sampler import Sampler, SamplerConfig
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.layers.attention.triton_paged import TritonPagedAttention
from tgi_cli.runtime.layers.placement import on_gpu
from tgi_cli.runtime.models.loader import load_model
from tgi_cli.runtime.models.weights import TORCH_DTYPES


def make_attention(config, gpu, staging) -> TritonPagedAttention:
    model = config.model
    return TritonPagedAttention(
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        kv_cache_dtype=TORCH_DTYPES[config.kv_cache_dtype],
        max_context=config.max_total_tokens,
        device=gpu.device,
        uploader=staging,
    )


def make_model(config, gpu, attention):
    placement = on_gpu(gpu.device, TORCH_DTYPES[config.dtype])
    with torch.no_grad():
        return load_model(config.model, config.weights, config.dtype, attention, placement)


def make_sampler(config, gpu, runner) -> MixedSampler:
    device = ToyDeviceSampler(gpu, runner, config)
    return MixedSampler(gpu, device, Sampler(SamplerConfig.of(config)))


def test_a_gpus_engine_says_what_the_cpus_says(tmp_path: Path, monkeypatch) -> None:
    write_tiny_checkpoint(tmp_path, dtype=torch.float16, num_hidden_layers=1)
    config = engine_config(
        locate_model(str(tmp_path)),
        max_total_tokens=96,
        max_step_tokens=24,
        max_running=4,
        num_blocks=12,
    )
    requests = [request(index, num_tokens=5 + 11 * index, max_new_tokens=3) for index in range(3)]
    plain = Engine(config, make_runner(config))
    for each in requests:
        plain.add(each)
    expected = run_to_end(plain)
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)
    config = msgspec.structs.replace(config, device="cuda", wiggle_room=1.0, cuda_graphs=(1, 3))

    loaded = load(config, FakeGpu(), Parts(make_attention, make_model, make_sampler))
    for each in requests:
        loaded.engine.add(each)

    assert run_to_end(loaded.engine) == expected
