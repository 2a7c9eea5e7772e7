"""A model's tokenizer: ids of a text, text of ids, and where each token stands.

Wraps the `tokenizers` library, which releases the interpreter's lock while it works, so a thread
pool makes use of several cores. Special tokens are added only where asked: a chat template writes
its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import msgspec
from tokenizers import AddedToken
from tokenizers import Tokenizer as _Tokenizer

from tgi_cli.errors import CorruptModelError, ValidationError
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.text.token_bounds import bounds_of


class TokenSpan(msgspec.Struct, frozen=True, gc=False):
    """A token and the bytes of the text that it stands for; 0, 0 and "" if it isn't in the text."""

    id: int
    text: str
    start: int  # byte offset into the UTF-8 text
    stop: int


class Tokenizer:
    """Raises `CorruptModelError` if the assets hold no tokenizer that the library can read."""

    def __init__(self, assets: TextAssets) -> None:
        try:
            self._tokenizer = _Tokenizer.from_str(assets.tokenizer_json)
        except Exception as exc:
            # The library raises nothing more specific than this.
            raise CorruptModelError(f"tokenizer.json can't be read: {exc}") from exc
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special_ids = frozenset(
            index
            for index, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        )
        # Put before a token, it keeps the space that some decoders drop at the beginning of a text.
        self._letter_ids = self.encode("a", add_special_tokens=False)
        self._letter = self.decode(self._letter_ids, skip_special_tokens=False)
        self.vocab_size = int(self._tokenizer.get_vocab_size(with_added_tokens=True))
        self.bounds = bounds_of(assets.tokenizer_json, self._tokenizer)
        self.bos_token = assets.bos_token
        self.eos_token = assets.eos_token

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special_ids

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`. Raises `ValidationError` for text that isn't Unicode."""
        # Where the tokens stand, which the batch leaves out, takes a quarter of the time.
        [ids] = self.encode_batch([text], add_special_tokens=add_special_tokens)
        return ids

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the ids of each text. Raises `ValidationError` as `encode` does."""
        with _reported():
            for text in texts:
                text.encode()
            encodings = self._tokenizer.encode_batch_fast(
                list(texts), add_special_tokens=add_special_tokens
            )
        return [encoding.ids for encoding in encodings]

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool) -> list[TokenSpan]:
        """Return the tokens of `text` with their byte offsets."""
        with _reported():
            raw = text.encode()
            encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        starts: Sequence[int] = range(len(text) + 1)
        if not text.isascii():
            starts = [0, *accumulate(len(char.encode()) for char in text)]
        spans = []
        for token_id, (first, last) in zip(encoding.ids, encoding.offsets, strict=True):
            start, stop = starts[first], starts[last]
            spans.append(TokenSpan(token_id, raw[start:stop].decode(errors="replace"), start, stop))
        return spans

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))

    def token_text(self, token_id: int) -> str:
        """Return what `token_id` would add to a text, its leading space included."""
        text = self.decode([*self._letter_ids, token_id], skip_special_tokens=False)
        return text.removeprefix(self._letter)

    @property
    def special_tokens(self) -> list[AddedToken]:
        added = self._tokenizer.get_added_tokens_decoder()
        return [token for index, token in added.items() if index in self._special_ids]

    def literal_twin(self, guard: str) -> Tokenizer:
        """Return a copy to which special tokens are text, and `guard` a token of its own."""
        twin = copy.copy(self)
        twin._tokenizer = _Tokenizer.from_str(self._tokenizer.to_str())
        twin._tokenizer.encode_special_tokens = True
        twin._tokenizer.add_tokens([AddedToken(guard, normalized=False)])
        return twin


@contextmanager
def _reported() -> Iterator[None]:
    """Turn what the library raises, which has no common type, into the client's error."""
    try:
        yield
    except UnicodeEncodeError as exc:
        raise ValidationError("tokenizer error the text holds a lone surrogate") from exc
    except Exception as exc:
        raise ValidationError("tokenizer error the text can't be tokenized") from exc
