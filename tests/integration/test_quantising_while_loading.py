"""A plain checkpoint that `tgi serve --quantize` quantises: the tokens of such an engine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.model import engine_config, generate, make_runner
from tests.builders.served import served
from tests.integration.test_quantized_checkpoints import ask
from tgi_cli.runtime.config.quantization import OnLoad
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.hub.locate import locate_model


def test_a_plain_checkpoint_is_served_in_the_format_that_was_asked_for(tmp_path: Path):
    write_tiny_checkpoint(tmp_path, hidden_size=128, head_dim=32, intermediate_size=192)
    with served("--model-id", str(tmp_path), "--quantize", "bitsandbytes-nf4") as server:
        url = server.wait_ready()
        details = ask(url)
    plain = engine_config(locate_model(str(tmp_path)), max_total_tokens=128, num_blocks=8)
    weights = msgspec.structs.replace(plain.weights, quantization=OnLoad(method="bitsandbytes-nf4"))
    quantised = msgspec.structs.replace(plain, weights=weights)
    prompt = [token["id"] for token in details["prefill"]]

    expected, others = (
        generate(Engine(config, make_runner(config)), [prompt], 9)[0]
        for config in (quantised, plain)
    )

    assert expected != others, "a prompt that tells one from the other"
    assert [token["id"] for token in details["tokens"]] == expected
    assert any(line.split()[:2] == ["quantize", "bitsandbytes-nf4"] for line in server.lines)
