"""Masks are about bytes: they fit what the detokenizer makes of the tokens, whatever their kind."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from tests.builders.tokenizers import END, byte_fallback_tokenizer, byte_level_tokenizer
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.engine.grammar.llguidance_matcher import LlguidanceMatcher
from tgi_cli.runtime.text.detokenizer import Detokenizer
from tgi_cli.runtime.text.grammar import compile_grammar, make_tokenizer
from tgi_cli.runtime.text.tokenizer import Tokenizer
from tgi_cli.runtime.types import Grammar

KINDS = [byte_level_tokenizer, byte_fallback_tokenizer]
PATTERNS = [r"(a|b c| d){3,9}", "(é|日本|😀){1,4}", r"\n[a-c ]{2,5}\t", r"[^a-z]{3}"]


def walk(assets: TextAssets, pattern: str, seed: int) -> tuple[str, list[int]]:
    """Choose at random among what is allowed, until the end; return the text and its tokens."""
    tokenizer = Tokenizer(assets)
    (end_id,) = tokenizer.encode(END, add_special_tokens=False)[-1:]
    bytes_of_tokens = make_tokenizer(assets.tokenizer_json, tokenizer.vocab_size + 9, (end_id,))
    compiled = compile_grammar(Grammar("regex", pattern), bytes_of_tokens)
    matcher = LlguidanceMatcher(compiled, bytes_of_tokens, (end_id,), ignores_end=False)
    detokenizer = Detokenizer(tokenizer, [3, 5])
    rng, token_ids, pieces = random.Random(seed), [], []
    while not matcher.is_finished:
        bits = np.unpackbits(matcher.bitmask().numpy().view(np.uint8), bitorder="little")
        token_ids.append(rng.choice(bits.nonzero()[0].tolist()))
        matcher.accept(token_ids[-1])
        if not matcher.is_finished:
            pieces.append(detokenizer.push(token_ids[-1]))
    return "".join([*pieces, detokenizer.flush()]), token_ids


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", KINDS)
def test_text_of_allowed_tokens_matches(kind, pattern, seed):
    text, token_ids = walk(kind(), pattern, seed)

    assert re.fullmatch(pattern, text), (text, token_ids)
    assert max(token_ids) < Tokenizer(kind()).vocab_size
