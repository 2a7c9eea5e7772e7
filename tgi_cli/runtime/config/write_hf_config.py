"""A model configuration as Hugging Face's `config.json`: the reverse of `hf_config.py`.

What that file has no words for is refused, so that what is written means what was read. Llama 3's
rotary scaling, which GGUF files state as one divisor per frequency, is put back into its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.config.hf_config import ARCHITECTURES, parse_hf_config
from tgi_cli.runtime.config.model_config import Dtype, ModelConfig, RopeScaling

_LLAMA3_LOW, _LLAMA3_HIGH = 1.0, 4.0  # the factors of every model that has this scaling
_TOLERANCE = 1e-4


def write_hf_config(config: ModelConfig, dtype: Dtype) -> dict[str, Any]:
    """Return the `config.json` of a model whose weights are stored in `dtype`.

    Raises:
        UnsupportedModelError: a property that no key of the architecture's `config.json` states.
    """
    if config.rope_scaling is not None and config.rope_scaling.kind == "divisors":
        scaling = _llama3_of_divisors(config.rope_scaling.divisors, config)
        config = msgspec.structs.replace(config, rope_scaling=scaling)
    config = msgspec.structs.replace(config, checkpoint_dtype=dtype)
    family = config.family
    raw: dict[str, Any] = {
        "architectures": [next(name for name, f in ARCHITECTURES.items() if f == family)],
        "model_type": family,
        "torch_dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    if family != "qwen2":  # whose biases are always the same ones
        raw["attention_bias"] = config.attention_bias
    if family == "llama":
        raw["mlp_bias"] = config.mlp_bias
    if config.rope_scaling is not None:
        raw["rope_scaling"] = _rope_scaling(config.rope_scaling)
    if family != "llama":
        raw |= _sliding_window(config)
    _check_says_the_same(raw, config)
    return raw


def _rope_scaling(scaling: RopeScaling) -> dict[str, Any]:
    raw: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.original_max_position_embeddings is not None:
        raw["original_max_position_embeddings"] = scaling.original_max_position_embeddings
    if scaling.kind == "llama3":
        raw["low_freq_factor"] = scaling.low_freq_factor
        raw["high_freq_factor"] = scaling.high_freq_factor
    if scaling.kind == "yarn":
        raw["beta_fast"], raw["beta_slow"] = scaling.beta_fast, scaling.beta_slow
        if scaling.attention_factor is not None:
            raw["attention_factor"] = scaling.attention_factor
    return raw


def _sliding_window(config: ModelConfig) -> dict[str, Any]:
    """Return the window's keys, said also where there is none: an absent key may mean one."""
    if config.sliding_window is None or config.family == "mistral":
        return {"sliding_window": config.sliding_window}
    num_full = config.num_full_attention_layers
    num_windowed = config.num_layers - num_full
    return {
        "sliding_window": config.sliding_window,
        "use_sliding_window": True,
        "max_window_layers": num_full,
        "layer_types": ["full_attention"] * num_full + ["sliding_attention"] * num_windowed,
    }


def _check_says_the_same(raw: dict[str, Any], config: ModelConfig) -> None:
    said = parse_hf_config(raw)
    for name in config.__struct_fields__:
        wanted, found = getattr(config, name), getattr(said, name)
        if wanted != found:
            raise UnsupportedModelError(
                f"The model's {name} is {wanted}, which a config.json of "
                f"{raw['architectures'][0]} can't state."
            )


def _llama3_of_divisors(divisors: Sequence[float], config: ModelConfig) -> RopeScaling:
    """Return the scaling whose frequencies these divisors give.

    With w a frequency's wavelength and L the length of training, llama3 divides by the factor
    where w > L, by 1 where w < L / 4, and between them by 1 / ((1 - s) / factor + s) with
    s = (L / w - 1) / (4 - 1), which gives L.
    """
    factor = float(round(max(divisors), 3))
    wavelengths = [
        2 * math.pi * config.rope_theta ** (2 * i / config.head_dim) for i in range(len(divisors))
    ]
    for wavelength, divisor in zip(wavelengths, divisors, strict=True):
        if factor > 1 and 1 + _TOLERANCE < divisor < factor - _TOLERANCE:
            smooth = (1 / divisor - 1 / factor) / (1 - 1 / factor)
            length = (smooth * (_LLAMA3_HIGH - _LLAMA3_LOW) + _LLAMA3_LOW) * wavelength
            scaling = RopeScaling(
                kind="llama3",
                factor=factor,
                original_max_position_embeddings=round(length),
                low_freq_factor=_LLAMA3_LOW,
                high_freq_factor=_LLAMA3_HIGH,
            )
            if _gives(scaling, wavelengths, divisors):
                return scaling
    raise UnsupportedModelError(
        "The file's rotary divisors aren't those of llama3, and a config.json can't state others."
    )


def _gives(scaling: RopeScaling, wavelengths: list[float], divisors: Sequence[float]) -> bool:
    length = scaling.original_max_position_embeddings
    assert length is not None
    for wavelength, divisor in zip(wavelengths, divisors, strict=True):
        smooth = (length / wavelength - _LLAMA3_LOW) / (_LLAMA3_HIGH - _LLAMA3_LOW)
        smooth = min(1.0, max(0.0, smooth))
        expected = 1 / ((1 - smooth) / scaling.factor + smooth)
        if not math.isclose(expected, divisor, rel_tol=_TOLERANCE):
            return False
    return True
