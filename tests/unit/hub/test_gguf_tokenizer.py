from __future__ import annotations

from typing import Any

import pytest
from tokenizers import pre_tokenizers

from tgi_cli.errors import CorruptModelError, UnsupportedModelError
from tgi_cli.runtime.hub.demo import demo_path
from tgi_cli.runtime.hub.gguf_file import GgufFile
from tgi_cli.runtime.hub.gguf_tokenizer import gguf_eos_token_ids, gguf_text_assets
from tgi_cli.runtime.text.tokenizer import Tokenizer

CORPUS = [
    "The quick brown fox doesn't jump: it'll WALK, 12345 times (3.14%)!",
    "def f(x):\n    return x**2  # squared\n\n\n\tdone\r\n",
    "日本語のテキストと漢字、한국어 텍스트, 中文文本。",
    "😀 👨‍👩‍👧‍👦 é ñ ü ß Ω ∑ … \u200b\u00a0 end",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "   leading and trailing   ",
    "",
]
BYTE_LEVEL = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(words: str, *merges: str, **changes: Any) -> dict[str, Any]:
    tokens = [*BYTE_LEVEL, *(merge.replace(" ", "") for merge in merges), "<s>", "</s>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": words,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 2) + [3, 3],
        "tokenizer.ggml.bos_token_id": len(tokens) - 2,
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
        **changes,
    }


def sentencepiece(**changes: Any) -> dict[str, Any]:
    pieces = {"▁": -1.0, "a": -9.0, "b": -9.0, "▁a": -2.0, "ab": -3.0, "▁ab": -1.5}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + list(pieces.values()),
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **changes,
    }


def tokens_of(
    metadata: dict[str, Any], text: str, *, add_special_tokens: bool = False
) -> list[str]:
    tokenizer = Tokenizer(gguf_text_assets(metadata, "m.gguf"))
    names = metadata["tokenizer.ggml.tokens"]
    return [names[i] for i in tokenizer.encode(text, add_special_tokens=add_special_tokens)]


def test_the_demo_models_tokenizer_equals_transformers():
    from transformers import AutoTokenizer

    path = demo_path()
    reference = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    assets = gguf_text_assets(GgufFile(path).metadata, path.name)
    tokenizer = Tokenizer(assets)

    for text in CORPUS:
        ids = tokenizer.encode(text, add_special_tokens=True)

        assert ids == reference(text)["input_ids"], text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert assets.chat_templates["default"] == reference.chat_template


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        ("gpt-2", ["1234", "Ġ", "x"]),
        ("smollm", ["1", "2", "3", "4", "Ġ", "x"]),
        ("llama-bpe", ["123", "4", "Ġ", "x"]),
        ("qwen2", ["1", "2", "3", "4", "Ġ", "x"]),
    ],
)
def test_words_are_cut_as_the_file_names_it(words, pieces):
    metadata = byte_level(words, "1 2", "12 3", "123 4")

    assert tokens_of(metadata, "1234 x") == pieces


def test_a_bos_token_is_added_where_the_file_says_so():
    metadata = byte_level("gpt-2", "1 2", **{"tokenizer.ggml.add_bos_token": True})

    assert tokens_of(metadata, "x", add_special_tokens=True) == ["<s>", "x"]
    assert tokens_of(metadata, "x") == ["x"]


def test_sentencepiece_merges_follow_the_scores_and_unknown_characters_become_bytes():
    metadata = sentencepiece()
    tokenizer = Tokenizer(gguf_text_assets(metadata, "m.gguf"))

    assert tokens_of(metadata, "ab a") == ["▁ab", "▁a"]
    assert tokens_of(metadata, "é", add_special_tokens=True) == ["<s>", "▁", "<0xC3>", "<0xA9>"]
    ids = tokenizer.encode("ab é a", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab é a"


def test_end_of_turn_is_an_end_too():
    metadata = {"tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.eot_token_id": 7}

    assert gguf_eos_token_ids(metadata) == (2, 7)


@pytest.mark.parametrize(
    ("metadata", "error", "reason"),
    [
        (byte_level("deepseek-r1", "1 2"), UnsupportedModelError, "pre-tokenizer 'deepseek-r1'"),
        (sentencepiece(**{"tokenizer.ggml.model": "rwkv"}), UnsupportedModelError, "'rwkv'"),
        (sentencepiece(**{"tokenizer.ggml.scores": [1.0]}), CorruptModelError, "scores"),
        (sentencepiece(**{"tokenizer.ggml.token_type": [1]}), CorruptModelError, "token_type"),
        (sentencepiece(**{"tokenizer.ggml.bos_token_id": 10**6}), CorruptModelError, "outside"),
        (byte_level("gpt-2", **{"tokenizer.ggml.merges": ["z zz"]}), CorruptModelError, "merges"),
        ({"tokenizer.ggml.model": "gpt2"}, CorruptModelError, "tokens must be a list"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_cannot_be_built_is_refused(metadata, error, reason):
    with pytest.raises(error, match=reason):
        gguf_text_assets(metadata, "m.gguf")
