from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.tokenizers import END, byte_fallback_tokenizer, byte_level_tokenizer
from tgi_cli.runtime.text.detokenizer import Detokenizer
from tgi_cli.runtime.text.tokenizer import Tokenizer

BYTE_LEVEL = Tokenizer(byte_level_tokenizer())
BYTE_FALLBACK = Tokenizer(byte_fallback_tokenizer())
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK])


def pieces_of(tokenizer: Tokenizer, prompt_ids: list[int], ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    return [*map(detokenizer.push, ids), detokenizer.flush()]


@TOKENIZERS
@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_pieces_of_an_encoded_text_join_to_the_text(tokenizer, text):
    prompt_ids = tokenizer.encode("a a", add_special_tokens=False)
    ids = tokenizer.encode(text, add_special_tokens=False)

    pieces = pieces_of(tokenizer, prompt_ids, ids)

    whole = tokenizer.decode(prompt_ids + ids, skip_special_tokens=False)
    assert "".join(pieces) == whole[len(tokenizer.decode(prompt_ids, skip_special_tokens=False)) :]


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, BYTE_LEVEL.vocab_size - 1), max_size=60))
def test_pieces_of_any_ids_join_to_the_whole_decode(ids):
    pieces = pieces_of(BYTE_LEVEL, [], ids)

    assert "".join(pieces) == BYTE_LEVEL.decode(ids, skip_special_tokens=False)


def test_a_character_of_several_tokens_comes_whole_with_its_last():
    ids = BYTE_LEVEL.encode("🦜", add_special_tokens=False)
    assert len(ids) == 4

    assert pieces_of(BYTE_LEVEL, [], ids) == ["", "", "", "🦜", ""]


def test_a_character_begun_by_the_prompt_comes_whole():
    ids = BYTE_LEVEL.encode("🦜", add_special_tokens=False)

    assert pieces_of(BYTE_LEVEL, ids[:2], ids[2:]) == ["", "🦜", ""]


def test_an_incomplete_last_character_is_held_until_flush():
    ids = BYTE_LEVEL.encode("a🦜", add_special_tokens=False)[:-1]

    assert pieces_of(BYTE_LEVEL, [], ids) == ["a", "", "", "", "\ufffd"]


def test_special_tokens_show_their_surface_form():
    end = BYTE_LEVEL.encode(END, add_special_tokens=False)

    assert pieces_of(BYTE_LEVEL, [], end) == [END, ""]
    assert BYTE_LEVEL.is_special(end[0])
