"""A whole GGUF model, written tensor by tensor from one in safetensors."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.files import gguf_bytes
from tgi_cli.runtime.config.tensor_names import expected_tensors, gguf_name
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import Weights


def permuted(tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Interleave rotary pairs, as the converter of llama.cpp does for q and k of `llama`."""
    halves = tensor.view(num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def write_gguf(
    located: LocatedModel,
    path: Path,
    rope_divisors: Sequence[float] = (),
    ggml_types: Mapping[str, str] = {},
    num_parts: int = 1,
    **metadata: Any,
) -> None:
    """Write the model with a tokenizer of made-up tokens; `metadata` replaces entries.

    `ggml_types` are the types of tensors whose names hold a part; the others are in fp32. Several
    parts are named `m-00001-of-….gguf` and so on, beside `path`.
    """
    model = located.config
    architecture = "llama" if model.family == "mistral" else model.family
    weights = Weights(WeightsReader(located.weights), model, "float32")
    tensors: dict[str, tuple[str | int, list[int], bytes]] = {}
    for name, shape in expected_tensors(model).items():
        tensor = weights.get(name)
        if architecture == "llama" and "q_proj" in name:
            tensor = permuted(tensor, model.num_heads)
        if architecture == "llama" and "k_proj" in name:
            tensor = permuted(tensor, model.num_kv_heads)
        kinds = [kind for part, kind in ggml_types.items() if part in name] or ["F32"]
        values = tensor.contiguous().numpy()
        raw = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kinds[0]]).tobytes()
        tensors[gguf_name(name)] = (kinds[0], list(shape), raw)
    if rope_divisors:
        raw = struct.pack(f"<{len(rope_divisors)}f", *rope_divisors)
        tensors["rope_freqs.weight"] = ("F32", [len(rope_divisors)], raw)
    sizes = {
        "block_count": model.num_layers,
        "context_length": model.max_position_embeddings,
        "embedding_length": model.hidden_size,
        "feed_forward_length": model.intermediate_size,
        "attention.head_count": model.num_heads,
        "attention.head_count_kv": model.num_kv_heads,
        "attention.key_length": model.head_dim,
        "attention.layer_norm_rms_epsilon": model.rms_norm_eps,
        "rope.freq_base": model.rope_theta,
    }
    entries = {f"{architecture}.{key}": value for key, value in sizes.items()} | {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["t", "1", "t1", *(f"t{i}" for i in range(3, model.vocab_size))],
        "tokenizer.ggml.merges": ["t 1"],
        "tokenizer.ggml.eos_token_id": 2,
    }
    names = list(tensors)
    for number in range(num_parts):
        part = {name: tensors[name] for name in names[number::num_parts]}
        about = entries | metadata if number == 0 else {}
        if num_parts > 1:
            path = path.with_name(f"m-{number + 1:05}-of-{num_parts:05}.gguf")
            about = about | {"split.no": number, "split.count": num_parts}
        path.write_bytes(gguf_bytes(about, part))


BLOCKS = {"self_attn": "Q4_0", "down_proj": "Q8_0", "mlp": "Q4_1", "embed_tokens": "Q4_0"}


def write_blocks(folder: Path) -> tuple[Path, Path]:
    """Write a model in types that have a grid of their own; return it twice, as its own twin."""
    write_tiny_checkpoint(folder / "source", hidden_size=128, head_dim=32, tie_word_embeddings=True)
    write_gguf(locate_model(str(folder / "source")), folder / "model.gguf", ggml_types=BLOCKS)
    return folder / "model.gguf", folder / "model.gguf"


def llama3_divisors(head_dim: int, theta: float = 10000.0) -> list[float]:
    """What llama.cpp's converter writes for `LLAMA3`."""
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * torch.pi * theta ** (i / head_dim)
        if wavelength < 64 / 4.0:
            divisors.append(1.0)
        elif wavelength > 64 / 1.0:
            divisors.append(8.0)
        else:
            smooth = (64 / wavelength - 1.0) / (4.0 - 1.0)
            divisors.append(1 / ((1 - smooth) / 8.0 + smooth))
    return divisors


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
"""Rotary scaling of a tiny model, as `config.json` states it."""
