"""OpenAI's parallel lists of log-probabilities, and where each token stands in the text."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.builders.tokenizers import END, byte_fallback_tokenizer, byte_level_tokenizer
from tgi_cli.runtime.router.completions.logprobs import LogprobsBuilder, offsets_in
from tgi_cli.runtime.router.tokens import GeneratedToken, PromptToken, ScoredToken
from tgi_cli.runtime.text.detokenizer import Detokenizer
from tgi_cli.runtime.text.tokenizer import Tokenizer

TOKENIZERS = [Tokenizer(byte_level_tokenizer()), Tokenizer(byte_fallback_tokenizer())]


def pieces_of(tokenizer: Tokenizer, text: str) -> list[str]:
    detokenizer = Detokenizer(tokenizer, [])
    ids = tokenizer.encode(text, add_special_tokens=False)
    return [detokenizer.push(token_id) for token_id in ids]


def token(text: str, logprob: float = -0.5, **options) -> GeneratedToken:
    values = {"id": 7, "is_special": False, "finish_reason": None, **options}
    return GeneratedToken(text=text, logprob=logprob, **values)


def scored(text: str, logprob: float, token_id: int) -> ScoredToken:
    return ScoredToken(token_id, text, logprob, False)


@given(text=st.text(max_size=40))
def test_pieces_of_a_text_stand_side_by_side_in_it(text):
    pieces = pieces_of(TOKENIZERS[0], text)

    offsets = list(offsets_in(text, pieces))

    for offset, piece in zip(offsets, pieces, strict=True):
        assert text[offset:].startswith(piece)
    assert offsets == sorted(offsets)


@given(text=st.text("abc p", max_size=40))
def test_a_space_that_the_tokenizer_made_up_takes_no_room(text):
    pieces = pieces_of(TOKENIZERS[1], text)

    offsets = [*offsets_in(text, pieces), len(text)]

    for (start, stop), piece in zip(pairwise(offsets), pieces, strict=True):
        assert text[start:stop] in (piece, piece.removeprefix(" "))
    assert offsets[0] == 0


def test_a_special_token_before_the_text_takes_no_room():
    assert list(offsets_in("ab c", ["<s>", "ab", " c"])) == [0, 0, 2]


def test_the_first_token_of_a_prompt_has_no_score():
    scores = LogprobsBuilder(num_top=1)
    scores.add_prompt(
        [PromptToken(1, "ab", None, []), PromptToken(2, "c", -0.25, [scored("d", -0.1, 3)])], "abc"
    )
    scores.add(token("ef"))
    taken = scores.take()

    assert taken.tokens == ["ab", "c", "ef"]
    assert taken.token_logprobs == [None, -0.25, -0.5]
    assert taken.top_logprobs == [None, {"d": -0.1, "c": -0.25}, {"ef": -0.5}]
    assert taken.text_offset == [0, 2, 3]


def test_offsets_go_on_from_one_take_to_the_next_and_leave_out_special_tokens():
    scores = LogprobsBuilder(num_top=0)
    scores.add(token("ab"))
    first = scores.take()
    scores.add(token(END, is_special=True))
    scores.add(token("c"))
    second = scores.take()

    assert first.text_offset == [0]
    assert second.tokens == [END, "c"]
    assert second.text_offset == [2, 2]


def test_the_best_tokens_are_cut_to_their_number_and_told_by_the_text_they_have():
    scores = LogprobsBuilder(num_top=2)
    top = [scored("\ufffd", -0.5, 7), scored("b", -0.75, 8), scored("c", -0.75, 9)]
    scores.add(token("", top_tokens=top))

    [best] = scores.take().top_logprobs

    assert best == {"": -0.5, "b": -0.75}  # token 7 is half a character: it has no text yet


def test_of_tokens_with_the_same_text_the_better_one_is_told():
    scores = LogprobsBuilder(num_top=2)
    top = [scored("\ufffd", -0.5, 7), scored("\ufffd", -0.75, 8)]
    scores.add(token("x", -3.0, id=9, top_tokens=top))

    assert scores.take().top_logprobs == [{"\ufffd": -0.5, "x": -3.0}]


def test_what_json_cannot_hold_is_null_or_left_out():
    scores = LogprobsBuilder(num_top=1)
    scores.add(token("a", math.nan))
    scores.add(token("b", -1.0, top_tokens=[scored("c", -math.inf, 3)]))
    taken = scores.take()

    assert taken.token_logprobs == [None, -1.0]
    assert taken.top_logprobs == [None, {"b": -1.0}]
