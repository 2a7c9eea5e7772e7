from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from tests.builders.tokenizers import END, byte_fallback_tokenizer, byte_level_tokenizer
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


def test_a_tokens_own_text_keeps_its_leading_space():
    fields = json.loads(byte_fallback_tokenizer().tokenizer_json)
    fields["decoder"]["decoders"].append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    tokenizer = Tokenizer(TextAssets(tokenizer_json=json.dumps(fields)))
    [*_, token_id] = tokenizer.encode("b a", add_special_tokens=False)

    assert tokenizer.decode([token_id], skip_special_tokens=False) == "a"
    assert tokenizer.token_text(token_id) == " a"


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30))
def test_ids_are_the_same_with_and_without_offsets(text):
    spans = TOKENIZER.encode_with_offsets(text, add_special_tokens=True)

    assert TOKENIZER.encode(text, add_special_tokens=True) == [span.id for span in spans]


def test_a_lone_surrogate_is_the_clients_mistake():
    with pytest.raises(ValidationError, match="tokenizer error"):
        TOKENIZER.encode("a\ud800", add_special_tokens=False)


def test_a_broken_tokenizer_file_is_named():
    with pytest.raises(CorruptModelError, match=r"tokenizer\.json"):
        Tokenizer(TextAssets(tokenizer_json="{}"))


def test_a_token_that_the_tokenizer_adds_has_no_place_in_the_text():
    library = tokenizers.Tokenizer.from_str(byte_level_tokenizer().tokenizer_json)
    library.post_processor = TemplateProcessing(
        single=f"{END} $A {END}", special_tokens=[(END, library.token_to_id(END))]
    )
    tokenizer = Tokenizer(TextAssets(tokenizer_json=library.to_str()))

    first, *middle, last = tokenizer.encode_with_offsets("é b", add_special_tokens=True)

    for added in (first, last):
        assert (added.id, added.text) == (library.token_to_id(END), "")
        assert (added.start, added.stop) == (0, 0)
    assert middle == tokenizer.encode_with_offsets("é b", add_special_tokens=False)
