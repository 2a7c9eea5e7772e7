"""Prompts of an exact number of tokens, from text that every Python carries.

Slices of the language reference (`pydoc_data`), so nothing is downloaded and no two prompts share
a prefix.
"""

from __future__ import annotations

from pydoc_data.topics import topics

from tokenizers import Tokenizer


def make_prompts(tokenizer: Tokenizer, count: int, num_tokens: int) -> list[str]:
    """Return `count` texts that each encode to `num_tokens` tokens without special ones."""
    text = "\n".join(topics[name] for name in sorted(topics))
    ids = tokenizer.encode(text[:2_000_000], add_special_tokens=False).ids
    prompts: list[str] = []
    start = 0
    while len(prompts) < count:
        assert start + num_tokens < len(ids), "the text is too short for this many prompts"
        prompt = tokenizer.decode(ids[start : start + num_tokens])
        start += num_tokens + 17
        # A slice may begin inside a word; most still encode to what they were cut from.
        if len(tokenizer.encode(prompt, add_special_tokens=False).ids) == num_tokens:
            prompts.append(prompt)
    return prompts
