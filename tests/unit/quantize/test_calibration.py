from __future__ import annotations

import pytest

from tests.builders.tokenizers import beginning_tokenizer, byte_level_tokenizer
from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.quantize.calibration import calibration_text, draw_windows, held_out_text
from tgi_cli.runtime.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(byte_level_tokenizer())
TEXT = "".join(chr(97 + number % 7) + chr(65 + number % 11) for number in range(500))


def test_windows_are_parts_of_the_text_and_none_comes_twice() -> None:
    windows = draw_windows(TOKENIZER, TEXT, 20, 37, seed=0)

    parts = [TOKENIZER.decode(ids, skip_special_tokens=False) for ids in windows.tolist()]
    places = sorted(TEXT.index(part) for part in parts)
    assert all(part in TEXT for part in parts)
    assert windows.shape == (20, 37)
    assert len(places) == 20


def test_the_seed_alone_decides_which_windows_and_in_which_order() -> None:
    first = draw_windows(TOKENIZER, TEXT, 5, 37, seed=0)

    assert draw_windows(TOKENIZER, TEXT, 5, 37, seed=0).equal(first)
    assert not draw_windows(TOKENIZER, TEXT, 5, 37, seed=1).equal(first)
    assert draw_windows(TOKENIZER, TEXT, 9, 37, seed=0)[:5].equal(first)


def test_each_window_begins_with_the_token_that_prompts_begin_with() -> None:
    tokenizer = Tokenizer(beginning_tokenizer())
    [first] = tokenizer.encode("", add_special_tokens=True)

    windows = draw_windows(tokenizer, TEXT, 5, 37, seed=0)

    assert windows.shape == (5, 37)
    assert (windows[:, 0] == first).all()
    assert (windows[:, 1:] != first).all()


@pytest.mark.parametrize(("num_samples", "length"), [(1, 1001), (28, 37), (3, 0)])
def test_a_text_that_is_too_short_is_refused_with_both_numbers(
    num_samples: int, length: int
) -> None:
    with pytest.raises(ArgumentError):
        draw_windows(TOKENIZER, TEXT, num_samples, length, seed=0)


def test_nothing_that_is_measured_on_was_calibrated_on() -> None:
    def paragraphs(text: str) -> set[str]:
        return {part.strip() for part in text.split("\n\n") if len(part.strip()) > 60}

    calibrated, held_out = paragraphs(calibration_text()), paragraphs(held_out_text())

    assert not calibrated & held_out
    assert len(calibrated) > 1000
    assert len(held_out) > 300
    assert len(calibration_text()) <= 400_000
