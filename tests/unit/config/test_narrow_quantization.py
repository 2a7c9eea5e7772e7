"""What checkpoints of 8 bits, or 4 with a table, say; and methods that need no such checkpoint."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders.narrow import NARROW
from tests.builders.serving import CONFIG
from tests.unit.config.test_quantization import decide, decision
from tgi_cli.errors import ArgumentError, CorruptModelError, UnsupportedModelError
from tgi_cli.runtime.config.quantization import (
    BitsAndBytesInt8,
    FloatQuantized,
    Fp4,
    Fp8,
    IntQuantized,
    Nf4,
    OnLoad,
    parse_quantization,
)
from tgi_cli.runtime.config.stored_tensors import num_parameters, weights_bytes

FP8 = NARROW["fp8"].config
BLOCKS = NARROW["fp8-blocks"].config
NF4 = NARROW["nf4"].config
INT8 = NARROW["bitsandbytes"].config


def compressed(name: str, **changes: Any) -> dict[str, Any]:
    config = NARROW[name].config
    group = config["config_groups"]["group_0"]
    weights = {**group["weights"], **changes}
    return {**config, "config_groups": {"group_0": {**group, "weights": weights}}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (FP8, Fp8(scales_of="tensor")),
        (BLOCKS, Fp8(scales_of="block", block=(48, 32), scale_name="weight_scale_inv")),
        (NARROW["fbgemm"].config, Fp8(scales_of="channel", unconverted=("lm_head",))),
        ({**FP8, "ignored_layers": ["lm_head"]}, Fp8(scales_of="tensor", unconverted=("lm_head",))),
        (compressed("float-quantized", strategy="tensor"),
         FloatQuantized(scales_of="tensor", unconverted=("lm_head",))),
        (compressed("float-quantized", strategy="block", block_structure=[128, 128]),
         FloatQuantized(scales_of="block", block=(128, 128), unconverted=("lm_head",))),
        (compressed("int-quantized", strategy="group", group_size=32),
         IntQuantized(group_size=32, unconverted=("lm_head",))),
        (compressed("int-quantized", strategy="tensor"),
         IntQuantized(group_size=None, has_one_scale=True, unconverted=("lm_head",))),
        (compressed("int-quantized", symmetric=False),
         IntQuantized(group_size=None, is_symmetric=False, unconverted=("lm_head",))),
        (INT8, BitsAndBytesInt8()),
        ({**INT8, "llm_int8_skip_modules": ["mlp"]},
         BitsAndBytesInt8(unconverted=("mlp",))),
        (NF4, Nf4(is_nested=False)),
        (NARROW["nf4-nested"].config, Nf4(is_nested=True)),
        (NARROW["fp4"].config, Fp4(is_nested=False)),
    ],
)  # fmt: skip
def test_a_configuration_says_which_format_it_is(config, expected):
    assert parse_quantization(config, "x") == expected


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        ({**FP8, "fmt": "e5m2"}, UnsupportedModelError, "'e5m2'; this build reads e4m3"),
        ({**BLOCKS, "weight_block_size": [128]}, CorruptModelError, "'weight_block_size' must be"),
        ({**BLOCKS, "weight_block_size": [0, 128]}, CorruptModelError, "two integers from 1"),
        ({**BLOCKS, "weight_block_size": [1 << 40, 1]}, CorruptModelError, "two integers from 1"),
        ({**FP8, "ignored_layers": 3}, CorruptModelError, "'ignored_layers' must be a list"),
        ({**NF4, "load_in_8bit": True}, UnsupportedModelError, "exactly one of load_in_4bit"),
        ({"quant_method": "bitsandbytes"}, UnsupportedModelError, "exactly one of load_in_4bit"),
        ({**NF4, "load_in_4bit": "yes"}, CorruptModelError, "'load_in_4bit' must be true or false"),
        ({**NF4, "bnb_4bit_quant_type": "af4"}, CorruptModelError, "must be 'nf4' or 'fp4'"),
        (compressed("float-quantized", num_bits=4), CorruptModelError, "'num_bits' must be 8"),
        (compressed("float-quantized", type="int"), CorruptModelError, "'type' must be 'float'"),
        (compressed("float-quantized", strategy="group"), CorruptModelError, "'strategy' must be"),
        (compressed("int-quantized", strategy="token"), CorruptModelError, "'strategy' must be"),
    ],
)
def test_what_cannot_be_read_is_refused_by_key(config, error, reason):
    with pytest.raises(error, match=reason):
        parse_quantization(config, "x")


@pytest.mark.parametrize(
    ("config", "asked", "told"),
    [
        (FP8, None, "fp8"),
        (NARROW["fbgemm"].config, "fp8", "fp8"),
        (NARROW["float-quantized"].config, "compressed-tensors", "compressed-tensors"),
        (INT8, "bitsandbytes", "bitsandbytes"),
        (NF4, "bitsandbytes", "bitsandbytes-nf4"),
        (NF4, "bitsandbytes-nf4", "bitsandbytes-nf4"),
    ],
)
def test_the_checkpoint_decides_and_the_option_may_agree(config, asked, told):
    resolved = decide(config, quantize=asked)

    value, reason = decision(resolved) or ("", "")
    assert value == told
    assert reason.startswith("asked for" if asked else "the checkpoint's own")


def test_scales_of_activations_are_told_to_be_unused():
    assert "scales of activations are not used" in (decision(decide(FP8)) or ("", ""))[1]


@pytest.mark.parametrize(
    ("config", "asked", "found"),
    [
        (NF4, "bitsandbytes-fp4", "bitsandbytes-nf4"),
        (INT8, "eetq", "bitsandbytes"),
        (FP8, "compressed-tensors", "fp8"),
        (NARROW["float-quantized"].config, "fp8", "compressed-tensors"),
    ],
)
def test_an_option_that_contradicts_the_checkpoint_is_refused(config, asked, found):
    with pytest.raises(ArgumentError, match=f"is {asked}, but .* is quantised with {found}"):
        decide(config, quantize=asked)


@pytest.mark.parametrize("method", OnLoad.methods)
def test_a_plain_checkpoint_is_quantised_while_loading(method):
    resolved = decide(None, quantize=method)

    assert resolved.engine.weights.quantization == OnLoad(method=method)
    assert decision(resolved) == (method, "asked for; done while loading")


def test_a_type_may_be_asked_for_beside_bitsandbytes_only():
    assert decide(None, quantize="bitsandbytes", dtype="bfloat16").engine.dtype == "bfloat16"
    with pytest.raises(ArgumentError, match="Only 1 can be set between `dtype` and `quantize`"):
        decide(None, quantize="eetq", dtype="bfloat16")


@pytest.mark.parametrize("method", OnLoad.methods)
def test_memory_counts_narrow_weights(method):
    config = msgspec.structs.replace(CONFIG, hidden_size=512, intermediate_size=1024, head_dim=128)

    packed = weights_bytes(config, OnLoad(method=method), 2, packs=True)

    share = packed / num_parameters(config) / 2
    assert 0.25 < share < (0.4 if "4" in method else 0.6)
