"""A whole GGUF model against the same model in safetensors."""

from __future__ import annotations

import pytest

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.gguf_model import LLAMA3, llama3_divisors, write_gguf
from tests.builders.model import engine_config, prompt_logits
from tgi_cli.errors import CorruptModelError, ModelNotFoundError, NotAModelError
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


def test_a_gguf_model_in_parts_gives_the_logits_of_one_file(tmp_path):
    write_tiny_checkpoint(tmp_path)
    original = locate_model(str(tmp_path))
    write_gguf(original, tmp_path / "m.gguf")
    write_gguf(original, tmp_path / "m.gguf", num_parts=3)
    whole = locate_model(str(tmp_path / "m.gguf"))

    split = locate_model(str(tmp_path / "m-00001-of-00003.gguf"))

    assert split.weights.num_bytes == whole.weights.num_bytes
    sizes = {"dtype": "float32", "max_total_tokens": 256, "num_blocks": 40}
    expected = prompt_logits(engine_config(whole, **sizes), PROMPT, 512)
    assert prompt_logits(engine_config(split, **sizes), PROMPT, 512).equal(expected)


def test_parts_of_a_gguf_model_are_no_model_without_the_others(tmp_path):
    write_tiny_checkpoint(tmp_path)
    write_gguf(locate_model(str(tmp_path)), tmp_path / "m.gguf", num_parts=2)
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))

    with pytest.raises(NotAModelError, match="one of 2 parts"):
        locate_model(str(second))
    second.unlink()
    with pytest.raises(ModelNotFoundError, match=r"m-00002-of-00002\.gguf"):
        locate_model(str(first))


@pytest.mark.parametrize("divisors", [[1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [float("nan")]])
def test_rotary_divisors_that_cannot_be_are_refused(divisors, tmp_path):
    write_tiny_checkpoint(tmp_path)
    path = tmp_path / "m.gguf"
    write_gguf(locate_model(str(tmp_path)), path, divisors)

    with pytest.raises(CorruptModelError, match=r"rope_freqs\.weight.*8 positive"):
        locate_model(str(path))
