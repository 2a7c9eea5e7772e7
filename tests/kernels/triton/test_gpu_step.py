"""A step on a GPU from plan to scores, by Triton: captured or not, alone or not, the same bits."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.fake_gpu import FakeGpu
from tests.builders.model import engine_config
from tgi_cli.kernels import devices
from tgi_cli.runtime.engine.determinism import Stepper
from tgi_cli.runtime.engine.gpu_runner import GpuRunner
from tgi_cli.runtime.engine.staging import Staging
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.layers.attention.triton_paged import TritonPagedAttention
from tgi_cli.runtime.layers.placement import on_gpu
from tgi_cli.runtime.models.loader import load_model

SIZES = {
    "vocab_size": 301,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
LENGTHS = (1, 40, 33)


def make_stepper(
    folder: Path, graph_sizes: list[int], max_total_tokens: int = 96
) -> tuple[Stepper, FakeGpu]:
    located = locate_model(str(folder))
    config = engine_config(located, max_total_tokens=max_total_tokens, num_blocks=24, max_running=4)
    gpu = FakeGpu()
    staging = Staging(gpu)
    attention = TritonPagedAttention(
        num_heads=config.model.num_heads,
        num_kv_heads=config.model.num_kv_heads,
        head_dim=config.model.head_dim,
        max_context=config.max_total_tokens,
        kv_cache_dtype=torch.float16,
        device=gpu.device,
        uploader=staging,
    )
    placement = on_gpu(gpu.device, torch.float16)
    with torch.no_grad():
        model = load_model(config.model, config.weights, config.dtype, attention, placement)
    runner = GpuRunner(config, model, attention, gpu, staging)
    runner.capture_graphs(graph_sizes)
    return Stepper(runner, config), gpu


def run(stepper: Stepper, lengths: tuple[int, ...], num_steps: int = 2) -> list[torch.Tensor]:
    """Prefill prompts together and decode forced tokens; return the logits of each step."""
    sequences = [stepper.add([(7 * i + 3 * n) % 301 for i in range(n)]) for n in lengths]
    logits = []
    for step in range(num_steps):
        rows = stepper.step([(seq, seq.num_uncomputed_tokens) for seq in sequences])
        logits.append(torch.stack([rows[seq.request_id] for seq in sequences]))
        for seq, n in zip(sequences, lengths, strict=True):
            seq.token_ids.append((11 * step + n) % 301)
    return logits


def test_bits_are_those_of_a_sequence_alone_captured_or_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)
    write_tiny_checkpoint(tmp_path, dtype=torch.float16, **SIZES)

    stepper, gpu = make_stepper(tmp_path, [4])
    together = run(stepper, LENGTHS)
    assert gpu.calls_of("launch").count(("launch", "replay")) == 1
    eager, _ = make_stepper(tmp_path, [])
    alone = [run(eager, (n,)) for n in LENGTHS]

    for index in range(len(LENGTHS)):
        for step, logits in enumerate(together):
            assert logits[index].isfinite().all()
            torch.testing.assert_close(logits[index], alone[index][step][0], rtol=0, atol=0)


def test_a_graph_serves_contexts_other_than_those_it_was_captured_over(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)
    write_tiny_checkpoint(tmp_path, dtype=torch.float16, **SIZES)

    results = []
    for sizes in ([3], []):
        stepper, _ = make_stepper(tmp_path, sizes, max_total_tokens=320)
        generator = torch.Generator().manual_seed(7)
        for cache in stepper._runner._kv_cache.layers:  # type: ignore[attr-defined]
            cache.copy_(torch.randn(cache.shape, generator=generator))
        for lengths in ((300, 2), (30, 257)):  # one and two chunks of keys
            sequences = [stepper.add([n % 301] * n) for n in lengths]
            for seq in sequences:
                seq.num_computed_tokens = seq.num_tokens - 1  # what is in the cache will do
            results.append(torch.stack(list(stepper.step([(s, 1) for s in sequences]).values())))

    for captured, eager in zip(results[:2], results[2:], strict=True):
        assert captured.isfinite().all()
        torch.testing.assert_close(captured, eager, rtol=0, atol=0)
