"""A quantised checkpoint through `tgi serve`: its plain twin's tokens, and a bad one's error."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.builders.model import engine_config, generate, make_runner
from tests.builders.quantized import gptq, write_quantized
from tests.builders.served import served
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.hub.locate import locate_model


def ask(url: str) -> dict[str, Any]:
    """Return the details of a greedy answer, with the prompt's tokens."""
    parameters = {"max_new_tokens": 9, "details": True, "decoder_input_details": True}
    request = urllib.request.Request(
        f"{url}/generate",
        json.dumps({"inputs": "Four bits are enough", "parameters": parameters}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        details: dict[str, Any] = json.load(response)["details"]
    return details


def test_a_quantised_checkpoint_is_detected_and_says_what_its_plain_twin_says(tmp_path: Path):
    packed, plain = write_quantized(tmp_path, gptq(3, version=2, sym=False))
    with served("--model-id", str(packed)) as server:
        url = server.wait_ready()
        details = ask(url)
    config = engine_config(locate_model(str(plain)), max_total_tokens=128, num_blocks=8)

    [expected] = generate(
        Engine(config, make_runner(config)), [[token["id"] for token in details["prefill"]]], 9
    )

    assert [token["id"] for token in details["tokens"]] == expected
    assert any("quantize" in line and "gptq" in line for line in server.lines)


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
