"""A whole GGUF model against the same model in safetensors."""

from __future__ import annotations

import pytest

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.gguf_model import LLAMA3, llama3_divisors, write_gguf
from tests.builders.model import engine_config, prompt_logits
from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.hub.locate import locate_model

PROMPT = [(37 * i + 11) % 301 for i in range(150)]


def test_a_gguf_model_with_llama3_scaling_gives_the_logits_of_its_safetensors(tmp_path):
    write_tiny_checkpoint(tmp_path, rope_parameters=LLAMA3)
    original = locate_model(str(tmp_path))
    path = tmp_path / "m.gguf"
    write_gguf(original, path, llama3_divisors(original.config.head_dim))

    converted = locate_model(str(path))

    sizes = {"dtype": "float32", "max_total_tokens": 256, "num_blocks": 40}
    expected = prompt_logits(engine_config(original, **sizes), PROMPT, 512)
    logits = prompt_logits(engine_config(converted, **sizes), PROMPT, 512)
    assert (logits - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("divisors", [[1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [float("nan")]])
def test_rotary_divisors_that_cannot_be_are_refused(divisors, tmp_path):
    write_tiny_checkpoint(tmp_path)
    path = tmp_path / "m.gguf"
    write_gguf(locate_model(str(tmp_path)), path, divisors)

    with pytest.raises(CorruptModelError, match=r"rope_freqs\.weight.*8 positive"):
        locate_model(str(path))
