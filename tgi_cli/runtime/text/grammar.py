"""From a `Grammar` to what llguidance compiles, and the limits under which it does.

Router and engine compile the same text with the same tokenizer and limits: the router to refuse
what can't be used, the engine to use it. llguidance is loaded when it is first needed.

JSON comes without white space but for one optional space after each comma and colon, so that a
model can't go on with blanks for ever. In patterns, \\d, \\w and \\s are ASCII, as in JSON Schema.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

import msgspec

from tgi_cli.runtime.types import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

MAX_SOURCE_CHARACTERS = 1 << 19
# Tighter than llguidance's own, so that a mask takes milliseconds at worst: at 50,000 items a rule
# that is ambiguous enough took 270 ms. A schema of 128 tools needs a few hundred.
_MAX_ITEMS_PER_MASK = 5_000
_MAX_LEXER_STATES = 50_000  # of 1 to 2 kB, for each sequence
_MAX_GRAMMAR_SYMBOLS = 250_000
_END_STAND_IN = "<|end of guided output|>"
_JSON_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "lenient": False,
    "coerce_one_of": False,
}
_SPECIAL_CHARACTERS = re.compile(r"[\\.+*?()|\[\]{}^$#&\-~/]")


def make_tokenizer(
    tokenizer_json: str, vocab_size: int, eos_token_ids: tuple[int, ...]
) -> LLTokenizer:
    """Return the tokenizer as llguidance knows it: the bytes of each id of `vocab_size`.

    Without end of sequence ids it has one more id, which stands for the end and is never sampled.

    Raises:
        ValueError: llguidance can't tell which bytes this kind of tokenizer's tokens are.
        KeyError, TypeError: it isn't a tokenizer.
    """
    from llguidance import LLTokenizer

    ends = list(eos_token_ids)
    if not ends:
        tokenizer_json, end = _with_stand_in(tokenizer_json)
        ends, vocab_size = [end], max(vocab_size, end + 1)
    return LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=ends)


def _with_stand_in(tokenizer_json: str) -> tuple[str, int]:
    parsed = json.loads(tokenizer_json)
    vocabulary = parsed["model"]["vocab"]
    entries = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    added = parsed.setdefault("added_tokens", [])
    end = 1 + max((*entries, *(token["id"] for token in added)))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added.append({"id": end, "content": _END_STAND_IN, "special": True, **flags})
    return json.dumps(parsed), end


def compile_grammar(grammar: Grammar, tokenizer: LLTokenizer) -> LLMatcher:
    """Return a matcher at the start of `grammar`; `is_error` says whether it is of use.

    Takes up to about a second for what the limits just allow, most of it without the
    interpreter's lock.
    """
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(
        step_max_items=_MAX_ITEMS_PER_MASK,
        max_lexer_states=_MAX_LEXER_STATES,
        max_grammar_size=_MAX_GRAMMAR_SYMBOLS,
        verbose_errors=False,
    )
    return LLMatcher(tokenizer, _to_llguidance(grammar), log_level=0, limits=limits)


def _to_llguidance(grammar: Grammar) -> str:
    from llguidance import LLMatcher, regex_to_lark

    match grammar.kind:
        case "json_schema":
            options = cast("JsonCompileOptions", _JSON_OPTIONS)
            return LLMatcher.grammar_from_json_schema(grammar.source, overrides=options)
        case "regex":
            return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(grammar.source, 'dws')}/")
        case "choice":
            choices = msgspec.json.decode(grammar.source, type=list[str])
            pattern = "|".join(_SPECIAL_CHARACTERS.sub(r"\\\g<0>", text) for text in choices)
            return LLMatcher.grammar_from_regex(pattern)
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.source)
