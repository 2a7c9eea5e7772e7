"""A whole GGUF model, written tensor by tensor, against the same model in safetensors."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.files import gguf_bytes
from tests.builders.model import engine_config, prompt_logits
from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.tensor_names import expected_tensors, gguf_name
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import Weights

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PROMPT = [(37 * i + 11) % 301 for i in range(150)]


def permuted(tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Interleave rotary pairs, as the converter of llama.cpp does for q and k of `llama`."""
    halves = tensor.view(num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def write_gguf(located: LocatedModel, path: Path, rope_divisors: bytes) -> None:
    model = located.config
    weights = Weights(WeightsReader(located.weights), model, "float32")
    tensors: dict[str, tuple[str | int, list[int], bytes]] = {}
    for name, shape in expected_tensors(model).items():
        tensor = weights.get(name)
        if "q_proj" in name:
            tensor = permuted(tensor, model.num_heads)
        if "k_proj" in name:
            tensor = permuted(tensor, model.num_kv_heads)
        tensors[gguf_name(name)] = ("F32", list(shape), tensor.contiguous().numpy().tobytes())
    tensors["rope_freqs.weight"] = ("F32", [len(rope_divisors) // 4], rope_divisors)
    tokens = [f"t{i}" for i in range(model.vocab_size)]
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": model.num_layers,
        "llama.context_length": model.max_position_embeddings,
        "llama.embedding_length": model.hidden_size,
        "llama.feed_forward_length": model.intermediate_size,
        "llama.attention.head_count": model.num_heads,
        "llama.attention.head_count_kv": model.num_kv_heads,
        "llama.attention.key_length": model.head_dim,
        "llama.attention.layer_norm_rms_epsilon": model.rms_norm_eps,
        "llama.rope.freq_base": model.rope_theta,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": ["t 1"],
    }
    tokens[:3] = ["t", "1", "t1"]
    path.write_bytes(gguf_bytes(metadata, tensors))


def llama3_divisors(head_dim: int) -> list[float]:
    """What llama.cpp's converter writes for `LLAMA3`."""
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * torch.pi * 10000.0 ** (i / head_dim)
        if wavelength < 64 / 4.0:
            divisors.append(1.0)
        elif wavelength > 64 / 1.0:
            divisors.append(8.0)
        else:
            smooth = (64 / wavelength - 1.0) / (4.0 - 1.0)
            divisors.append(1 / ((1 - smooth) / 8.0 + smooth))
    return divisors


def test_a_gguf_model_with_llama3_scaling_gives_the_logits_of_its_safetensors(tmp_path):
    write_tiny_checkpoint(tmp_path, rope_parameters=LLAMA3)
    original = locate_model(str(tmp_path))
    divisors = llama3_divisors(original.config.head_dim)
    path = tmp_path / "m.gguf"
    write_gguf(original, path, struct.pack(f"<{len(divisors)}f", *divisors))

    converted = locate_model(str(path))

    sizes = {"dtype": "float32", "max_total_tokens": 256, "num_blocks": 40}
    expected = prompt_logits(engine_config(original, **sizes), PROMPT, 512)
    logits = prompt_logits(engine_config(converted, **sizes), PROMPT, 512)
    assert (logits - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("divisors", [[1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [float("nan")]])
def test_rotary_divisors_that_cannot_be_are_refused(divisors, tmp_path):
    write_tiny_checkpoint(tmp_path)
    path = tmp_path / "m.gguf"
    raw = struct.pack(f"<{len(divisors)}f", *divisors)
    write_gguf(locate_model(str(tmp_path)), path, raw)

    with pytest.raises(CorruptModelError, match=r"rope_freqs\.weight.*8 positive"):
        locate_model(str(path))
