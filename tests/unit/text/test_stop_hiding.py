from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.text.stop_hiding import StopStringHider
from tgi_cli.runtime.text.stop_strings import StopStringMatcher

LETTERS = st.text("ab", max_size=4)


def visible(text: str, stop: list[str]) -> str:
    """The slow twin: the text up to where the longest of the stop strings that end first begins."""
    for end in range(1, len(text) + 1):
        ending = [s for s in stop if s and text[:end].endswith(s)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


@given(pieces=st.lists(LETTERS, min_size=1, max_size=12), stop=st.lists(LETTERS, max_size=4))
def test_a_stop_string_is_left_out_however_the_text_is_cut(pieces, stop):
    matcher, hider = StopStringMatcher(stop), StopStringHider(stop)

    shown = ""
    for piece in pieces[:-1]:
        keep = matcher.push(piece)
        if keep is not None:
            shown += hider.push_last(piece[:keep], is_stopped=True)
            break
        shown += hider.push(piece)
    else:
        keep = matcher.push(pieces[-1])
        shown += hider.push_last(pieces[-1][:keep], is_stopped=keep is not None)

    assert shown == visible("".join(pieces), stop)


def test_text_is_held_back_only_while_it_could_be_a_stop_string():
    hider = StopStringHider(["\n\n###"])

    shown = [hider.push(piece) for piece in ("one", "\n", "\n#", "two\n")]

    assert shown == ["one", "", "", "\n\n#two"]
    assert hider.push_last("", is_stopped=False) == "\n"
