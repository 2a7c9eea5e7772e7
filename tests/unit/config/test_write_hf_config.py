from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.gguf_model import llama3_divisors
from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.config.hf_config import parse_hf_config
from tgi_cli.runtime.config.model_config import ModelConfig, RopeScaling
from tgi_cli.runtime.config.write_hf_config import write_hf_config

LLAMA = ModelConfig(
    family="llama",
    vocab_size=301,
    hidden_size=64,
    intermediate_size=96,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    max_position_embeddings=256,
    checkpoint_dtype="float16",
)
SCALINGS = st.one_of(
    st.none(),
    st.builds(RopeScaling, kind=st.just("linear"), factor=st.floats(0.5, 100)),
    st.builds(
        RopeScaling,
        kind=st.just("yarn"),
        factor=st.floats(1, 100),
        original_max_position_embeddings=st.integers(1, 10**6),
        beta_fast=st.floats(1, 64),
        attention_factor=st.none() | st.floats(0.1, 10),
    ),
    st.builds(
        RopeScaling,
        kind=st.just("llama3"),
        factor=st.floats(1, 100),
        original_max_position_embeddings=st.integers(1, 10**6),
        high_freq_factor=st.floats(2, 8),
    ),
)


def change(**changes: Any) -> ModelConfig:
    return msgspec.structs.replace(LLAMA, **changes)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    family = draw(st.sampled_from(["llama", "mistral", "qwen2", "qwen3"]))
    has_bias = draw(st.booleans())
    window = draw(st.none() | st.integers(1, 5000)) if family != "llama" else None
    has_full_layers = window is not None and family != "mistral"
    return change(
        family=family,
        num_kv_heads=draw(st.sampled_from([1, 2, 4])),
        head_dim=draw(st.sampled_from([10, 16, 64])),
        rope_theta=draw(st.floats(1, 1e7)),
        rope_scaling=draw(SCALINGS),
        tie_word_embeddings=draw(st.booleans()),
        attention_bias=family == "qwen2" or has_bias,
        attention_output_bias=family != "qwen2" and has_bias,
        mlp_bias=family == "llama" and draw(st.booleans()),
        qk_norm=family == "qwen3",
        sliding_window=window,
        num_full_attention_layers=draw(st.integers(0, 3)) if has_full_layers else 0,
    )


@given(config=configs())
def test_what_is_written_is_read_back_as_it_was(config):
    raw = write_hf_config(config, "bfloat16")

    assert parse_hf_config(raw) == msgspec.structs.replace(config, checkpoint_dtype="bfloat16")


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_llama3_is_recovered_from_its_divisors(theta):
    divisors = tuple(llama3_divisors(128, theta))
    scaling = RopeScaling(kind="divisors", divisors=divisors)

    raw = write_hf_config(change(head_dim=128, rope_theta=theta, rope_scaling=scaling), "float16")

    assert raw["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }


@pytest.mark.parametrize("divisors", [(1.0,) * 8, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)])
def test_divisors_of_another_scaling_are_refused(divisors):
    config = change(rope_scaling=RopeScaling(kind="divisors", divisors=divisors))

    with pytest.raises(UnsupportedModelError, match="aren't those of llama3"):
        write_hf_config(config, "float16")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attention_bias": True}, "attention_output_bias is False.*LlamaForCausalLM"),
        ({"family": "mistral", "mlp_bias": True}, "mlp_bias is True.*MistralForCausalLM"),
        ({"sliding_window": 7}, "sliding_window is 7"),
        ({"family": "qwen3", "qk_norm": False}, "qk_norm is False"),
    ],
)
def test_what_no_key_states_is_refused_by_name(changes, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        write_hf_config(change(**changes), "float16")
