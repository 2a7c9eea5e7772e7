"""Token ids to text, one at a time, never half a character.

A character may take several tokens, so a token's text is what it adds to the decoded end of the
sequence. What an incomplete character decodes to, one or more U+FFFD at the end, is held back
until it is decided. Pieces joined are the text of all tokens, and the text of a whole reply is
the same pieces joined, so that streaming can't change it (spec/scheduling.md section 12).
"""

from __future__ import annotations

from collections.abc import Sequence

from tgi_cli.runtime.text.tokenizer import Tokenizer

_CONTEXT = 5  # tokens of the prompt that a decoder may look at, for spaces
_MAX_WINDOW = 20  # tokens decoded at a time
_MAX_UNDECIDED = 40  # tokens after which an undecided end is taken as it is
_UNDECIDED = "\ufffd"


class Detokenizer:
    """Decodes a window of the newest tokens, which always begins between two characters."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._window = self._prompt_end(prompt_ids)
        self._text = self._decode()  # of the window
        self._num_emitted = len(self._decided())  # characters of it that are already out
        self._boundary = 0  # tokens of the window before the last piece
        self._newest_boundary = len(self._window)

    def push(self, token_id: int) -> str:
        """Return the text that `token_id` completes, special tokens in their surface form."""
        self._window.append(token_id)
        self._text = self._decode()
        num_tokens = len(self._window)
        if num_tokens - self._newest_boundary > _MAX_UNDECIDED:
            piece = self.flush()
        else:
            piece = self._take(self._decided())
        if self._num_emitted >= len(self._text):
            self._boundary, self._newest_boundary = self._newest_boundary, num_tokens
            if num_tokens > _MAX_WINDOW:
                self._shorten()
        return piece

    def flush(self) -> str:
        """Return what was held back, when no token will follow."""
        return self._take(self._text)

    def _prompt_end(self, prompt_ids: Sequence[int]) -> list[int]:
        """Return the last tokens of the prompt, from the first of them that begins a character."""
        for num_tokens in range(_CONTEXT, 2 * _CONTEXT):
            end = list(prompt_ids[-num_tokens:])
            if not self._tokenizer.decode(end, skip_special_tokens=False).startswith(_UNDECIDED):
                return end
        return list(prompt_ids[-_CONTEXT:])

    def _decided(self) -> str:
        return self._text.rstrip(_UNDECIDED)

    def _take(self, text: str) -> str:
        piece = text[self._num_emitted :]
        self._num_emitted = max(self._num_emitted, len(text))
        return piece

    def _shorten(self) -> None:
        """Forget all but the last piece; everything is out at this point."""
        del self._window[: self._boundary]
        self._boundary, self._newest_boundary = 0, len(self._window)
        self._text = self._decode()
        self._num_emitted = len(self._text)

    def _decode(self) -> str:
        return self._tokenizer.decode(self._window, skip_special_tokens=False)
