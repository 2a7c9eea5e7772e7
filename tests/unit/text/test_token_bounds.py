from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from tests.builders.tokenizers import byte_fallback_tokenizer, byte_level_tokenizer
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.text.token_bounds import TokenBounds
from tgi_cli.runtime.text.tokenizer import Tokenizer


def trained(*, splits_words: bool) -> Tokenizer:
    """Return a byte-level tokenizer whose merges hold blanks, alone and beside other bytes."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splits_words)
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(
        ["a  b c\n\n  d;\n" * 9, " " * 40, "x y " * 20, "é \t\t z"], trainer
    )
    return Tokenizer(TextAssets(tokenizer_json=library.to_str()))


TOKENIZERS = [
    Tokenizer(byte_level_tokenizer()),
    trained(splits_words=True),
    trained(splits_words=False),  # whose tokens go over the borders of words
]
PIECES = st.sampled_from([" ", "  " * 9, "\n", "\t", "a", "x y ", "é", "\u3000", "\xa0", "d;\n"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=40).map("".join))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, tokenizer=st.sampled_from(TOKENIZERS))
def test_no_text_has_fewer_tokens_than_told(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.bounds is not None
    ids = tokenizer.encode(text, add_special_tokens=False)

    assert tokenizer.bounds.fewest(text) <= len(ids)


def test_words_and_blanks_add_up() -> None:
    bounds = TokenBounds(max_bytes=64, max_blanks=64, max_blanks_beside=1, max_words=1)

    assert bounds.fewest("word " * 1000) == 1000
    assert bounds.fewest(" " * 6400) == 100
    assert bounds.fewest(" " * 6400 + "word " * 1000) == 1000 + (6400 + 63) // 64
    assert bounds.fewest("x" * 6400) == 100


def test_a_vocabulary_is_measured_as_it_is() -> None:
    bounds = TOKENIZERS[2].bounds

    assert bounds is not None
    assert bounds.max_words > 1
    assert bounds.max_blanks >= 16


def test_a_tokenizer_that_may_drop_text_has_no_bounds() -> None:
    assert Tokenizer(byte_fallback_tokenizer()).bounds is None
    lowered = msgspec.json.decode(byte_level_tokenizer().tokenizer_json)
    lowered["normalizer"] = {"type": "Lowercase"}
    assets = TextAssets(tokenizer_json=msgspec.json.encode(lowered).decode())
    assert Tokenizer(assets).bounds is None
