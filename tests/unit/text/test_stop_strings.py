from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.text.stop_strings import StopStringMatcher

LETTERS = st.text("ab", max_size=4)


def first_stop(pieces: list[str], stop: list[str]) -> int | None:
    """The slow twin: how many characters to keep of all pieces together."""
    text = "".join(pieces)
    ends = [text.find(s) + len(s) for s in stop if s and s in text]
    return min(ends, default=None)


@given(pieces=st.lists(LETTERS, max_size=12), stop=st.lists(LETTERS, max_size=4))
def test_the_first_stop_string_is_found_however_the_text_is_cut(pieces, stop):
    matcher = StopStringMatcher(stop)

    kept, found = 0, None
    for piece in pieces:
        keep = matcher.push(piece)
        if keep is not None:
            assert 0 < keep <= len(piece)
            found = kept + keep
            break
        kept += len(piece)

    assert found == first_stop(pieces, stop)
