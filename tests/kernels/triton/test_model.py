"""A whole model by Triton's kernels, interpreted on CPU tensors: the wiring, and the promise."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.model import engine_config, prompt_logits
from tests.builders.quantized import AWQ, gptq, write_quantized
from tgi_cli.kernels import devices
from tgi_cli.runtime.config.quantization import OnLoad
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.determinism import Stepper
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.layers.attention.triton_paged import TritonPagedAttention
from tgi_cli.runtime.layers.placement import on_gpu
from tgi_cli.runtime.models.loader import load_model
from tgi_cli.runtime.models.weights import TORCH_DTYPES
from tgi_cli.runtime.platforms.uploads import PlainUploader

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
TOLERANCE = {"bfloat16": 0.04, "float16": 0.006}  # of `error_of`


def config_of(folder: Path, dtype: str, **weights: Any) -> EngineConfig:
    located = locate_model(str(folder))
    config = engine_config(located, dtype=dtype, max_total_tokens=128, num_blocks=20)
    return msgspec.structs.replace(
        config, weights=msgspec.structs.replace(config.weights, **weights)
    )


def gpu_runner(config: EngineConfig, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Return a runner whose kernels are Triton's from now on, whatever device tensors name."""
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)
    placement = on_gpu(torch.device("cpu"), TORCH_DTYPES[config.dtype])
    attention = TritonPagedAttention(
        num_heads=config.model.num_heads,
        num_kv_heads=config.model.num_kv_heads,
        head_dim=config.model.head_dim,
        kv_cache_dtype=TORCH_DTYPES[config.kv_cache_dtype],
        max_context=config.max_total_tokens,
        device=placement.device,
        uploader=PlainUploader(placement.device),
    )
    with torch.no_grad():
        model = load_model(config.model, config.weights, config.dtype, attention, placement)
    return Runner(config, model, attention)


def gpu_logits(config: EngineConfig, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Return the logits [V] after the prompt."""
    stepper = Stepper(gpu_runner(config, monkeypatch), config)
    seq = stepper.add(PROMPT)
    return stepper.step([(seq, len(PROMPT))])[seq.request_id]


def error_of(logits: Tensor, expected: Tensor) -> float:
    """Return the largest error, in standard deviations of the logits."""
    assert logits.dtype == torch.float32
    return float((logits - expected).abs().max() / expected.std())


@pytest.mark.parametrize(
    ("family", "dtype", "target", "changes"),
    [
        ("llama", "bfloat16", "sm_90", {}),
        ("qwen2", "float16", "sm_80", {}),
        ("qwen3", "float16", "gfx942", {}),
        ("mistral", "float16", "sm_80", {"sliding_window": 7}),
    ],
)
def test_logits_are_near_those_of_transformers(
    tmp_path, family, dtype, target, changes, monkeypatch
) -> None:
    monkeypatch.setattr(devices, "target", lambda: target)
    sizes = {**SIZES, **changes}
    reference = write_tiny_checkpoint(tmp_path, family, dtype=TORCH_DTYPES[dtype], **sizes)

    logits = gpu_logits(config_of(tmp_path, dtype), monkeypatch)

    with torch.no_grad():
        expected = reference(torch.tensor([PROMPT])).logits[0, -1]
    assert error_of(logits, expected) < TOLERANCE[dtype]


def test_a_cache_of_8_bits_costs_a_little_of_the_logits(tmp_path, monkeypatch) -> None:
    write_tiny_checkpoint(tmp_path, dtype=torch.float16, num_hidden_layers=1)
    config = config_of(tmp_path, "float16")
    expected = prompt_logits(config, PROMPT, 64)

    logits = gpu_logits(msgspec.structs.replace(config, kv_cache_dtype="fp8_e4m3fn"), monkeypatch)

    assert TOLERANCE["float16"] < error_of(logits, expected) < 0.1


@pytest.mark.parametrize("recipe", [AWQ, gptq(order="one")], ids=["awq", "gptq-with-act-order"])
def test_four_bits_stay_four_bits(recipe, tmp_path, monkeypatch, caplog) -> None:
    folder, _ = write_quantized(tmp_path, recipe, vocab_size=301, dtype=torch.float16)
    config = config_of(folder, "float16")
    expected = prompt_logits(config, PROMPT, 64)

    with caplog.at_level(logging.WARNING):
        logits = gpu_logits(config, monkeypatch)

    assert error_of(logits, expected) < TOLERANCE["float16"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("method", "target", "tolerance"),
    [
        ("eetq", "sm_80", TOLERANCE["float16"]),
        ("fp8", "sm_80", TOLERANCE["float16"]),
        ("fp8", "sm_90", 0.25),  # activations are rounded to three bits of fraction, too
        ("bitsandbytes-nf4", "gfx942", TOLERANCE["float16"]),
    ],
)
def test_what_is_quantised_on_load_is_near_the_cpus(
    method, target, tolerance, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(devices, "target", lambda: target)
    write_tiny_checkpoint(tmp_path, dtype=torch.float16, num_hidden_layers=1)
    config = config_of(tmp_path, "float16", quantization=OnLoad(method=method))
    expected = prompt_logits(config, PROMPT, 64)

    logits = gpu_logits(config, monkeypatch)

    assert error_of(logits, expected) < tolerance


@pytest.mark.parametrize("is_awq", [False, True], ids=["16-bit", "awq"])
def test_a_request_has_the_same_bits_in_every_company(is_awq, tmp_path, monkeypatch) -> None:
    if is_awq:
        folder, _ = write_quantized(tmp_path, AWQ, vocab_size=301, dtype=torch.bfloat16)
    else:
        write_tiny_checkpoint(tmp_path, dtype=torch.bfloat16, **SIZES)
    config = config_of(folder if is_awq else tmp_path, "bfloat16")
    stepper = Stepper(gpu_runner(config, monkeypatch), config)
    short = PROMPT[5:15]
    alone = [stepper.step([(stepper.add(ids), len(ids))]) for ids in (PROMPT, short)]
    expected = [logits for step in alone for logits in step.values()]

    first, second = stepper.add(PROMPT), stepper.add(short)
    stepper.step([(first, 20), (second, 9)])  # two prompts, in chunks
    beside_a_prompt = stepper.step([(second, 1), (first, 16)])  # one decodes
    decoded = stepper.step([(first, 1)])

    assert torch.equal(beside_a_prompt[second.request_id], expected[1])
    assert torch.equal(decoded[first.request_id], expected[0])
