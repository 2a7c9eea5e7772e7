"""Every value of `--quantize` through `tgi serve`: the greedy tokens of its plain twin."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.builders.gguf_model import write_blocks
from tests.builders.model import engine_config, generate, make_runner
from tests.builders.narrow import NARROW, write_loaded, write_narrow
from tests.builders.quantized import AWQ, MARLIN, compressed, gptq, write_quantized
from tests.builders.served import served
from tgi_cli.runtime.config.options import Quantize
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.hub.locate import locate_model

Write = Callable[[Path], tuple[Path, Path]]  # what is served, and its plain twin

_NUM_TOKENS = 9
WAYS: dict[str, tuple[Quantize, Write]] = {
    "awq": ("awq", lambda folder: write_quantized(folder, AWQ)),
    "gptq": ("gptq", lambda folder: write_quantized(folder, gptq(3, version=2, sym=False))),
    "marlin": ("marlin", lambda folder: write_quantized(folder, MARLIN)),
    "pack-quantized": (
        "compressed-tensors",
        lambda folder: write_quantized(folder, compressed(4, is_symmetric=False)),
    ),
    "int-quantized": (
        "compressed-tensors",
        lambda folder: write_narrow(folder, NARROW["int-quantized"]),
    ),
    "float-quantized": (
        "compressed-tensors",
        lambda folder: write_narrow(folder, NARROW["float-quantized"]),
    ),
    "nf4-saved": ("bitsandbytes-nf4", lambda folder: write_narrow(folder, NARROW["nf4-nested"])),
    "eetq": ("eetq", lambda folder: write_loaded(folder, "eetq")),
    "fp8": ("fp8", lambda folder: write_loaded(folder, "fp8")),
    "int8": ("bitsandbytes", lambda folder: write_loaded(folder, "bitsandbytes")),
    "nf4": ("bitsandbytes-nf4", lambda folder: write_loaded(folder, "bitsandbytes-nf4")),
    "fp4": ("bitsandbytes-fp4", lambda folder: write_loaded(folder, "bitsandbytes-fp4")),
    "gguf": ("gguf", write_blocks),
}
_UNASKED = ("float-quantized", "nf4-saved")  # found without the option


def test_no_value_is_left_out():
    assert {option for option, _ in WAYS.values()} == {*get_args(Quantize)} - {"exl2"}


@pytest.mark.parametrize("way", WAYS)
def test_a_quantised_model_says_what_its_plain_twin_says(way: str, tmp_path: Path):
    option, write = WAYS[way]
    packed, plain = write(tmp_path)
    asked = () if way in _UNASKED else ("--quantize", option)

    with served("--model-id", str(packed), *asked) as server:
        prompt, tokens = _ask(server.wait_ready())

    config = engine_config(
        locate_model(str(plain)), dtype="float32", max_total_tokens=128, num_blocks=8
    )
    [expected] = generate(Engine(config, make_runner(config)), [prompt], _NUM_TOKENS)
    assert tokens == expected
    assert any(line.split()[:2] == ["quantize", option] for line in server.lines)
    assert not any("dequantised" in line for line in server.lines)


def test_exl2_is_refused_with_the_reason(tmp_path: Path):
    with served("--model-id", str(tmp_path), "--quantize", "exl2") as server:
        exit_code = server.wait_exit()

    assert exit_code == 1
    assert any("only ExLlamaV2's GPU kernels read" in line for line in server.lines)


def test_a_scale_that_is_no_number_ends_the_start_by_name(tmp_path: Path):
    packed, _ = write_quantized(tmp_path, gptq())
    tensors = load_file(packed / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.scales"
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, packed / "model.safetensors")

    with served("--model-id", str(packed)) as server:
        exit_code = server.wait_exit()

    assert exit_code == 1
    assert any(name in line and "not a number" in line for line in server.lines)
    assert not any("Traceback" in line for line in server.lines)


def _ask(url: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt and of its greedy answer."""
    parameters = {"max_new_tokens": _NUM_TOKENS, "details": True, "decoder_input_details": True}
    request = urllib.request.Request(
        f"{url}/generate",
        json.dumps({"inputs": "t1t1 tt: four bits, at 1", "parameters": parameters}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        details = json.load(response)["details"]
    prompt, tokens = ([token["id"] for token in details[key]] for key in ("prefill", "tokens"))
    return prompt, tokens
