"""A GGUF file as safetensors is, in transformers and here, the model that the file was made of."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.conversion import convert_here
from tests.builders.gguf_model import LLAMA3, llama3_divisors, write_gguf
from tests.builders.model import engine_config, prompt_logits
from tgi_cli.runtime.hub.convert.from_gguf import plan_gguf
from tgi_cli.runtime.hub.locate import locate_model

PROMPT = [(37 * i + 11) % 301 for i in range(150)]
SIZES = {"dtype": "float32", "max_total_tokens": 256, "num_blocks": 40}
CASES = {  # family, changes, and how far logits may differ
    "llama": ("llama", {}, 0.0),
    "llama_tied": ("llama", {"tie_word_embeddings": True}, 0.0),
    "llama3_rope": ("llama", {"rope_parameters": LLAMA3}, 1e-4),  # divisors are fp32 in the file
    "mistral": ("mistral", {"sliding_window": None}, 0.0),
    "qwen2": ("qwen2", {}, 0.0),
    "qwen3": ("qwen3", {}, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_transformers_gives_the_logits_of_the_original_and_we_give_those_of_the_file(
    case, tmp_path
):
    family, overrides, tolerance = CASES[case]
    original = write_tiny_checkpoint(tmp_path / "original", family, **overrides)
    located = locate_model(str(tmp_path / "original"))
    divisors = llama3_divisors(located.config.head_dim) if case == "llama3_rope" else ()
    write_gguf(located, tmp_path / "m.gguf", divisors)

    convert_here(plan_gguf, tmp_path / "m.gguf", tmp_path / "out", kind="gguf", dtype="float32")

    converted = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        expected = original(torch.tensor([PROMPT])).logits
        logits = converted.eval()(torch.tensor([PROMPT])).logits
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)
    of_file, of_folder = (
        prompt_logits(engine_config(locate_model(str(tmp_path / name)), **SIZES), PROMPT, 64)
        for name in ("m.gguf", "out")
    )
    torch.testing.assert_close(of_folder, of_file, rtol=tolerance, atol=tolerance)


def test_transformers_reads_the_tokenizer(tmp_path):
    write_tiny_checkpoint(tmp_path / "original")
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    metadata = {"tokenizer.chat_template": template}
    write_gguf(locate_model(str(tmp_path / "original")), tmp_path / "m.gguf", **metadata)

    convert_here(plan_gguf, tmp_path / "m.gguf", tmp_path / "out", kind="gguf")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("t1").input_ids == [2]
    assert tokenizer.eos_token == "t1"
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text == "hi"
