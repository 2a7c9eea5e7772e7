"""Special tokens in what a client wrote are text; everything else is tokenized as ever."""

from __future__ import annotations

import asyncio
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as LibraryTokenizer

from tests.builders.tokenizers import END, byte_fallback_tokenizer, byte_level_tokenizer
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.text.chat_template import ChatTemplate, RenderedChat
from tgi_cli.runtime.text.marked_encoder import MarkedTextEncoder
from tgi_cli.runtime.text.marked_text import Marker, special_pattern
from tgi_cli.runtime.text.tokenizer import Tokenizer

START, NEXT = "<|start|>", "<|start|>next"
SPECIAL = special_pattern([END, START, NEXT])


def with_more_tokens(assets: TextAssets, **options: bool) -> TextAssets:
    tokenizer = LibraryTokenizer.from_str(assets.tokenizer_json)
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, **options) for text in (START, NEXT)]
    )
    return msgspec.structs.replace(assets, tokenizer_json=tokenizer.to_str())


KINDS = {
    "byte-level": with_more_tokens(byte_level_tokenizer()),
    "byte-fallback": with_more_tokens(byte_fallback_tokenizer()),
    "takes white space": with_more_tokens(byte_level_tokenizer(), lstrip=True, rstrip=True),
}
TOKENIZERS = {kind: Tokenizer(assets) for kind, assets in KINDS.items()}
ENCODERS = {kind: MarkedTextEncoder(tokenizer) for kind, tokenizer in TOKENIZERS.items()}
pieces = st.lists(st.sampled_from([END, START, NEXT, " ", "\n", "a", "the", "<|", "é", "日"]))
texts = pieces.map("".join)


def mark(kind: str, parts: list[tuple[str, bool]]):
    """Join texts, of which those with a true mark are a client's."""
    marker = Marker(SPECIAL, [text for text, is_theirs in parts if is_theirs])
    joined = "".join(
        marker.mark(text) if is_theirs and marker.has_work else text for text, is_theirs in parts
    )
    return marker, marker.read(joined)


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(st.tuples(texts, st.booleans()), min_size=1, max_size=6))
def test_a_clients_special_tokens_never_become_tokens(kind, parts):
    marker, text = mark(kind, parts)
    if not marker.has_work:
        return
    tokenizer = TOKENIZERS[kind]
    meant = len(SPECIAL.findall(text.marked))

    spans = ENCODERS[kind].encode_with_offsets(text)

    assert sum(tokenizer.is_special(span.id) for span in spans) == meant
    assert all(span.id < tokenizer.vocab_size for span in spans)
    assert text.plain == "".join(piece for piece, _ in parts)
    raw = text.plain.encode()
    assert all(raw[s.start : s.stop].decode(errors="replace") == s.text for s in spans if s.text)


@pytest.mark.parametrize("kind", KINDS)
@given(before=texts, theirs=texts, after=texts)
def test_without_markers_in_them_the_pieces_are_tokenized_as_the_whole(kind, before, theirs, after):
    """The marked token is put where it has neighbours that no rule could join it with."""
    tokenizer = TOKENIZERS[kind]
    _, text = mark(kind, [(before + START, False), (END, True), (NEXT + theirs + after, False)])
    whole = tokenizer.encode(text.plain, add_special_tokens=False)

    ids = ENCODERS[kind].encode(text)

    end_id = tokenizer.encode(END, add_special_tokens=False)
    literal = ids[len(tokenizer.encode(before + START, add_special_tokens=False)) :]
    tail = tokenizer.encode(NEXT + theirs + after, add_special_tokens=False)
    assert ids[: len(ids) - len(literal)] == whole[: len(ids) - len(literal)]
    assert literal[len(literal) - len(tail) :] == tail == whole[len(whole) - len(tail) :]
    assert end_id[0] not in literal[: len(literal) - len(tail)]


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), min_size=1))
def test_a_literal_stretch_has_the_tokens_that_it_would_have_without_special_tokens(kind, text):
    """What stands beside a client's special token is joined with it as any text is."""
    unspecial = TOKENIZERS[kind].literal_twin("\U000fffff")
    _, marked = mark(kind, [(text + END + text, True)])

    ids = ENCODERS[kind].encode(marked)

    assert ids == unspecial.encode(text + END + text, add_special_tokens=False)


def test_a_request_without_special_tokens_is_left_alone():
    value = {"a": ["<|", "end|>"], "b": 3}

    assert not Marker(SPECIAL, value).has_work
    assert not Marker(None, END).has_work


@given(value=st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_only_requests_with_special_tokens_leave_the_ordinary_path(value):
    has_special = SPECIAL.search(json.dumps(value, ensure_ascii=False)) is not None

    assert Marker(SPECIAL, value).has_work == has_special


def test_names_of_a_clients_values_are_marked_too():
    marker = Marker(SPECIAL, {"properties": {END: {}}})

    assert END not in str(marker.mark({"properties": {END: {}}}))


@given(
    tokens=st.lists(st.text("<|ab1>", min_size=1, max_size=5), min_size=1, max_size=9),
    text=st.text("<|ab1>", max_size=40),
)
def test_the_longest_token_that_fits_is_found(tokens, text):
    plain = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))

    assert special_pattern(tokens).findall(text) == plain.findall(text)


def test_a_marker_is_no_character_of_the_request():
    everything = "".join(map(chr, range(0xF0000, 0xFFF00)))

    marker = Marker(SPECIAL, [everything, END])

    assert not set(marker.mark(END)) & set(everything)


def rendered(template: str, content: str) -> RenderedChat:
    async def run() -> RenderedChat:
        assets = msgspec.structs.replace(KINDS["byte-level"], chat_templates={"default": template})
        chat = ChatTemplate(assets)
        try:
            return await chat.render([{"role": "user", "content": content}])
        finally:
            await chat.close()

    return asyncio.run(run())


TEMPLATES = {
    "plain": "{{ messages[0].content }}",
    "trimmed": "{{ messages[0].content | trim }}",
    "upper": "{{ messages[0].content | upper }}",
    "split": "{{ messages[0].content.split('|')[-1] }}",
    "sliced": "{{ messages[0].content[1:-1] }}",
    "json": "{{ messages[0] | tojson }}",
    "replaced": "{{ messages[0].content | replace('<', '(') }}",
    "twice": "{{ messages[0].content }}{{ messages[0].content }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("content", [f" a{END}b{NEXT} ", END, f"{START}|{END}|"])
def test_whatever_a_template_does_with_them_they_stay_text(template, content):
    chat = rendered(f"{START}{template}{END}", content)

    assert chat.marked is not None
    spans = ENCODERS["byte-level"].encode_with_offsets(chat.marked)
    special = [s.text for s in spans if TOKENIZERS["byte-level"].is_special(s.id)]
    assert special == [START, END]
    assert chat.text == chat.marked.plain


def test_a_chat_without_special_tokens_is_not_marked():
    chat = rendered(f"{START}{{{{ messages[0].content }}}}{END}", "a <| b |>")

    assert chat.marked is None
    assert chat.text == f"{START}a <| b |>{END}"
