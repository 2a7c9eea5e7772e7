"""Sampling on a GPU under the loop that launches ahead: tokens that the host doesn't know yet."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.builders.engine import request
from tests.builders.fake_gpu import FakeGpu
from tests.builders.gpu_model import gpu_config, make_gpu_runner
from tgi_cli.kernels import devices
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.overlapped import OverlappedEngine
from tgi_cli.runtime.engine.sampling.gpu_sampler import GpuSampler
from tgi_cli.runtime.engine.sampling.launched import MixedSampler
from tgi_cli.runtime.engine.sampling.sampler import Sampler, SamplerConfig
from tgi_cli.runtime.ipc.messages import SequenceOutput

SAMPLINGS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.9, "frequency_penalty": 1.5, "min_tokens": 2},
    {"do_sample": True, "temperature": 3.0, "top_p": 0.95, "presence_penalty": 1.0, "seed": 7},
    {"watermark": True, "do_sample": True, "temperature": 3.0, "seed": 1},
    {"do_sample": True, "temperature": 2.0, "top_k": 30, "logit_bias": {5: 1.5}, "seed": 2},
]


def make_engine(*, ahead: bool) -> Engine:
    config = gpu_config(
        eos_token_ids=(3, 60), num_blocks=7, max_step_tokens=24, max_running=3, max_total_tokens=40
    )
    gpu = FakeGpu()
    runner, _, staging = make_gpu_runner(gpu, config)
    device = GpuSampler(SamplerConfig.of(config), gpu, staging, max_running=config.max_running)
    sampler = MixedSampler(gpu, device, Sampler(SamplerConfig.of(config)))
    if ahead:
        return OverlappedEngine(config, runner, sampler, reserved_new_tokens=1)
    return Engine(config, runner, sampler=sampler, reserved_new_tokens=1)


def play(engine: Engine) -> tuple[dict[int, list[SequenceOutput]], int]:
    """Let requests come one a step; return what each is told, and the number of preemptions."""
    arrivals = [
        request(i, 3 + 6 * i, 9, ignore_eos=i != 3, **sampling)
        for i, sampling in enumerate(SAMPLINGS)
    ]
    told: dict[int, list[SequenceOutput]] = {}
    num_preempted = 0
    while arrivals or engine.has_work:
        if arrivals:
            engine.add(arrivals.pop(0))
        step = engine.step()
        assert not step.failures
        num_preempted += step.stats.num_preempted
        for output in step.outputs:
            told.setdefault(output.request_id, []).append(output)
    return told, num_preempted


def test_what_is_counted_and_drawn_ahead_is_what_is_counted_and_drawn_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)

    with torch.no_grad():
        ahead, num_preempted = play(make_engine(ahead=True))
        in_turn, _ = play(make_engine(ahead=False))

    assert ahead == in_turn
    assert len(ahead) == len(SAMPLINGS)
    assert num_preempted > 0
