"""Tokenizers of the three great families, of a few hundred words, for the load generator's tests.

Each with and without a token that it puts in front of (and behind) every prompt.
"""

from __future__ import annotations

from functools import cache

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

_SYLLABLES = ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so"]
_WORDS = [a + b for a in _SYLLABLES for b in _SYLLABLES] + [a + "t" for a in _SYLLABLES]
TEXT = [" ".join(_WORDS[n % 7 :: n % 5 + 1]) + ". Ça va, 12 été!" for n in range(60)]

FAMILIES = ("byte-level", "unigram", "wordpiece")


@cache
def family_tokenizer(family: str, *, has_bos: bool) -> TextAssets:
    """Return a trained tokenizer of a family."""
    made = {"byte-level": _byte_level, "unigram": _unigram, "wordpiece": _wordpiece}[family]()
    if has_bos:
        is_pair = family == "wordpiece"  # such models end a prompt with a token too
        names = ["[CLS]", "[SEP]"] if is_pair else ["<s>"]
        made.add_special_tokens([AddedToken(name, normalized=False) for name in names])
        made.post_processor = processors.TemplateProcessing(
            single=[names[0], "$A", *names[1:]],
            special_tokens=[(name, made.token_to_id(name)) for name in names],
        )
    return TextAssets(tokenizer_json=made.to_str())


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=250, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer
