from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.tokenizers import byte_level_tokenizer
from tgi_cli.errors import CorruptModelError, ValidationError
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(byte_level_tokenizer())


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30))
def test_offsets_are_bytes_and_cover_the_text(text):
    spans = TOKENIZER.encode_with_offsets(text, add_special_tokens=True)

    raw = text.encode()
    for span in spans:
        assert span.text == raw[span.start : span.stop].decode(errors="replace")
    assert {i for span in spans for i in range(span.start, span.stop)} == set(range(len(raw)))


def test_a_lone_surrogate_is_the_clients_mistake():
    with pytest.raises(ValidationError, match="tokenizer error"):
        TOKENIZER.encode("a\ud800", add_special_tokens=False)


def test_a_broken_tokenizer_file_is_named():
    with pytest.raises(CorruptModelError, match=r"tokenizer\.json"):
        Tokenizer(TextAssets(tokenizer_json="{}"))
