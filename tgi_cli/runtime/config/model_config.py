"""What a model is, in our own words: the one form in which the rest of the code knows it.

A Hugging Face `config.json` (parsed by `hf_config.py`) and the metadata of a GGUF file are both
turned into a `ModelConfig`. Parsers read the keys that they know and no others, so that nothing
in a model repository can name code to run (DESIGN decision 6).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tgi_cli.runtime.config.quantization import Quantization

Dtype = Literal["float32", "float16", "bfloat16"]
KvCacheDtype = Literal["float16", "bfloat16", "float32", "fp8_e4m3fn", "fp8_e5m2"]
Family = Literal["llama", "mistral", "qwen2", "qwen3"]


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rotary frequencies are stretched beyond the trained length."""

    kind: Literal["linear", "dynamic", "llama3", "yarn", "divisors"]
    factor: float = 1.0
    divisors: tuple[float, ...] = ()  # "divisors": one per frequency, as GGUF files state them
    original_max_position_embeddings: int | None = None  # tokens
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn; None: 0.1 ln(factor) + 1


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decoder of the Llama family: the sizes and switches that its layers need."""

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    max_position_embeddings: int  # tokens
    tie_word_embeddings: bool = False
    attention_bias: bool = False  # on q, k and v
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # RMSNorm on each head of q and k (Qwen3)
    sliding_window: int | None = None  # tokens a query sees, itself included
    num_full_attention_layers: int = 0  # the first layers that ignore `sliding_window` (Qwen2)
    checkpoint_dtype: Dtype  # of the weights on disk; GGUF blocks count as float16


class WeightsSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the weights are: every file is local and was checked to be there."""

    kind: Literal["safetensors", "gguf"]
    files: tuple[str, ...]
    num_bytes: int  # of all tensors as stored
    num_parameters: int
    quantization: Quantization | None = None  # of safetensors, or to be done while loading
    # A GGUF file's tensors have a type each, so no one format of `Quantization` describes them.
    keeps_grid: bool = False  # Q4_0, Q4_1 and Q8_0 stay as they are; else all is rounded to dtype
    num_bytes_on_grid: int = 0  # in memory, if they do


class TextAssets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What turns a model's text into ids and back; `hub` finds it, `text` uses it."""

    tokenizer_json: str  # the `tokenizers` library's own format
    bos_token: str | None = None
    eos_token: str | None = None
    chat_templates: dict[str, str] = {}  # by name; the usual one is "default"
    model_max_length: int | None = None  # tokens; None: the file gives none or a placeholder
