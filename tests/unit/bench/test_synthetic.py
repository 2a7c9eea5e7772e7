"""Made texts have exactly the tokens that were asked for, whatever the tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.bench_tokenizers import FAMILIES, family_tokenizer
from tests.builders.tokenizers import byte_fallback_tokenizer, byte_level_tokenizer
from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import LocalCodec, common_words
from tgi_cli.runtime.bench.streams import generator
from tgi_cli.runtime.bench.synthetic import TextMaker
from tgi_cli.runtime.bench.text_file import TextFile
from tgi_cli.runtime.text.tokenizer import Tokenizer

_LENGTHS = [1, 2, 3, 5, 7, 13, 31, 64, 129, 300]


class Remote:
    """A codec whose vocabulary can't be listed, as one behind a server's route."""

    def __init__(self, codec):
        self._codec = codec

    def encode(self, texts, *, add_special_tokens):
        return self._codec.encode(texts, add_special_tokens=add_special_tokens)

    def words(self):
        return common_words()


def codec_of(assets):
    return LocalCodec(Tokenizer(assets))


def made(codec, lengths, seed=1, maker=None, opening=0):
    maker = maker or TextMaker(codec)
    drafts = [
        maker.draft(
            length, generator(seed, number), maker.draw(opening, generator(seed, "o", number))
        )
        for number, length in enumerate(lengths)
    ]
    return maker.finish(drafts)


def counts(codec, texts):
    return [len(ids) for ids in codec.encode(texts, add_special_tokens=True)]


@pytest.mark.parametrize("has_bos", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opening", [0, 6])
def test_every_text_is_exact(family, has_bos, opening):
    codec = codec_of(family_tokenizer(family, has_bos=has_bos))
    special = counts(codec, [""])[0]
    lengths = [length + special for length in _LENGTHS * 40]

    texts = made(codec, lengths, opening=opening)

    assert counts(codec, texts) == lengths


@pytest.mark.parametrize("assets", [byte_level_tokenizer(), byte_fallback_tokenizer()])
def test_tokenizers_with_few_words_are_exact_too(assets):
    codec = codec_of(assets)
    lengths = [length + 1 for length in _LENGTHS * 10]

    assert counts(codec, made(codec, lengths)) == lengths


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_survive_being_stripped(family):
    codec = codec_of(family_tokenizer(family, has_bos=True))

    texts = made(codec, [40] * 200, opening=6)

    assert all(text == text.strip() for text in texts)


def test_an_opening_is_kept_as_it_is():
    codec = codec_of(family_tokenizer("byte-level", has_bos=True))
    maker = TextMaker(codec)
    opening = maker.draw(6, generator("opening"))

    [text] = maker.finish([maker.draft(50, generator("rest"), opening)])

    assert text.startswith("".join(opening))


def test_a_length_below_the_shortest_text_becomes_that():
    codec = codec_of(family_tokenizer("wordpiece", has_bos=True))
    maker = TextMaker(codec)

    draft = maker.draft(1, generator("x"))

    assert draft.num_tokens == maker.min_tokens == 3
    assert counts(codec, maker.finish([draft])) == [3]


def test_texts_repeat_with_their_generator_and_differ_otherwise():
    codec = codec_of(family_tokenizer("unigram", has_bos=False))

    assert made(codec, [30] * 20, seed=1) == made(codec, [30] * 20, seed=1)
    assert len(set(made(codec, [30] * 200))) == 200


def test_a_remote_tokenizer_makes_exact_texts_of_common_words():
    codec = Remote(codec_of(byte_level_tokenizer()))

    texts = made(codec, _LENGTHS * 5)

    assert counts(codec, texts) == _LENGTHS * 5
    assert set(texts[-1].split()) <= {word.strip() for word in common_words()}


def test_a_tokenizer_without_words_of_one_token_is_refused():
    with pytest.raises(UsageError, match="one token"):
        TextMaker(Remote(_Letters()))


class _Letters:
    """Every letter is a token: no word is one."""

    def encode(self, texts, *, add_special_tokens):
        return [list(text.encode()) for text in texts]


@settings(max_examples=40)
@given(st.lists(st.integers(3, 90), min_size=1, max_size=20), st.integers(0, 99))
def test_any_lengths_are_exact(lengths, seed):
    codec = codec_of(family_tokenizer("wordpiece", has_bos=True))

    assert counts(codec, made(codec, lengths, seed=seed)) == lengths


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opening", [0, 6])
def test_real_text_is_cut_to_the_exact_length(tmp_path, family, opening):
    file = tmp_path / "text.txt"
    file.write_text("Ça va: 12 naughty foxes\n\njumped — over ba ce di, fogu!\n" * 7)
    codec = codec_of(family_tokenizer(family, has_bos=True))
    maker = TextMaker(codec)
    text_file = TextFile(str(file), maker)
    lengths = [length + maker.num_special_tokens for length in _LENGTHS * 5]

    drafts = [
        text_file.draft(length, generator(n), maker.draw(opening, generator("o", n)))
        for n, length in enumerate(lengths)
    ]
    texts = maker.finish(drafts)

    assert counts(codec, texts) == lengths
    assert sum("naughty foxes" in text for text in texts) > len(texts) // 4


def test_a_text_without_words_is_refused(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(" \n")
    maker = TextMaker(codec_of(family_tokenizer("unigram", has_bos=False)))

    with pytest.raises(UsageError, match="holds no text"):
        TextFile(str(file), maker)


@given(st.integers(1, 30), st.integers(0, 30))
def test_drawing_more_pieces_begins_with_the_same(count, more):
    maker = TextMaker(codec_of(family_tokenizer("byte-level", has_bos=False)))

    short, long = maker.draw(count, generator(5)), maker.draw(count + more, generator(5))

    assert long[:count] == short
    assert np.all([isinstance(piece, str) for piece in long])
