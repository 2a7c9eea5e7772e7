"""Each family against transformers in fp32, on tiny random checkpoints."""

from __future__ import annotations

import pytest
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.model import engine_config, prompt_logits
from tgi_cli.kernels import decoder, native
from tgi_cli.runtime.hub.locate import locate_model

PROMPT = [(37 * i + 11) % 301 for i in range(150)]

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "llama": ("llama", {}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "llama_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_one_kv_head": ("llama", {"num_key_value_heads": 1}),
    "llama_wide_heads": ("llama", {"head_dim": 24}),
    "llama_odd_heads": ("llama", {"head_dim": 10}),
    "llama_linear_rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}},
    ),
    "llama_llama3_rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama_yarn_rope": ("llama", {"rope_parameters": YARN}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": 33}),
    "qwen2": ("qwen2", {}),
    "qwen2_window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {}),
    "qwen3_biases_tied": ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_prefill_logits_equal_transformers_whole_and_in_chunks(case, tmp_path):
    family, overrides = CASES[case]
    reference = write_tiny_checkpoint(tmp_path, family, **overrides)
    config = engine_config(locate_model(str(tmp_path)), max_total_tokens=256, num_blocks=40)

    with torch.no_grad():
        expected = reference(torch.tensor([PROMPT])).logits[0, -1]
    for chunk in (len(PROMPT), 64, 7):
        logits = prompt_logits(config, PROMPT, chunk)

        error = (logits - expected).norm() / expected.norm()
        assert error < 1e-3, (chunk, float(error))


@pytest.mark.skipif(not native.is_available(), reason="no compiler at install")
@pytest.mark.parametrize("case", CASES)
def test_all_layers_in_one_call_give_the_bits_of_one_operation_after_the_other(
    case, tmp_path, monkeypatch
):
    family, overrides = CASES[case]
    write_tiny_checkpoint(tmp_path, family, **overrides)
    config = engine_config(locate_model(str(tmp_path)), max_total_tokens=256, num_blocks=40)

    in_one_call = prompt_logits(config, PROMPT, 33)
    monkeypatch.setattr(decoder, "can_run", lambda layers: False)
    one_by_one = prompt_logits(config, PROMPT, 33)

    assert torch.equal(in_one_call, one_by_one)


@pytest.mark.parametrize("case", ["llama", "mistral_window", "qwen3"])
def test_the_torch_fallback_gives_the_same_logits(case, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "is_available", lambda: False)

    test_prefill_logits_equal_transformers_whole_and_in_chunks(case, tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_are_widened_exactly(dtype, tmp_path):
    reference = write_tiny_checkpoint(tmp_path, dtype=dtype)
    located = locate_model(str(tmp_path))
    config = engine_config(located, max_total_tokens=256, num_blocks=40, kv_cache_dtype="float32")

    with torch.no_grad():
        expected = reference(torch.tensor([PROMPT])).logits[0, -1]
    logits = prompt_logits(config, PROMPT, 512)

    assert config.dtype == str(dtype).removeprefix("torch.")
    assert (logits - expected).norm() / expected.norm() < 1e-3


def test_a_sharded_checkpoint_gives_the_same_logits(tmp_path):
    write_tiny_checkpoint(tmp_path / "whole")
    write_tiny_checkpoint(tmp_path / "sharded", max_shard_size="60KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2

    whole, sharded = (
        prompt_logits(
            engine_config(locate_model(str(tmp_path / name)), max_total_tokens=256), PROMPT, 512
        )
        for name in ("whole", "sharded")
    )

    assert torch.equal(whole, sharded)
