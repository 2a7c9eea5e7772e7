"""Small tokenizers of the kinds that models have, built without any file."""

from __future__ import annotations

from functools import cache

import msgspec
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tgi_cli.runtime.config.model_config import TextAssets

END = "<|end|>"
TEXT = ["The quick brown fox jumps over the lazy dog. " * 3, "Hello, world! 12 34", "日本語 é 😀"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    + END
    + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _assets(tokenizer: Tokenizer) -> TextAssets:
    tokenizer.add_special_tokens([AddedToken(END, normalized=False)])
    return TextAssets(
        tokenizer_json=tokenizer.to_str(), eos_token=END, chat_templates={"default": TEMPLATE}
    )


@cache
def byte_level_tokenizer() -> TextAssets:
    """Byte-level BPE of about 300 tokens: any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return _assets(tokenizer)


@cache
def beginning_tokenizer() -> TextAssets:
    """The byte-level one, which puts its special token before a text if it is asked to."""
    assets = byte_level_tokenizer()
    tokenizer = Tokenizer.from_str(assets.tokenizer_json)
    special = (END, tokenizer.token_to_id(END))
    tokenizer.post_processor = processors.TemplateProcessing(f"{END} $A", None, [special])
    return msgspec.structs.replace(assets, tokenizer_json=tokenizer.to_str())


@cache
def byte_fallback_tokenizer() -> TextAssets:
    """SentencePiece-like: spaces as ▁, unknown characters as bytes."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnop", "▁a"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _assets(tokenizer)
