"""Server-sent events: the same payloads, wherever the reads cut the stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.bench.sse import MAX_EVENT_BYTES, EventSplitter


def split(*reads: bytes) -> list[bytes]:
    splitter = EventSplitter()
    events = [event for read in reads for event in splitter.feed(read)]
    return events + splitter.finish()


payloads = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=9), min_size=1
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream as some server may write it, and the payloads of its events."""
    end = draw(st.sampled_from(("\n", "\r\n")))
    stream, expected = "", []
    for lines in draw(st.lists(payloads, max_size=5)):
        stream += draw(st.sampled_from(("", ": ping" + end, "event: x" + end, "id:7" + end)))
        for line in lines:
            blank = " " if line.startswith(" ") or draw(st.booleans()) else ""
            stream += f"data:{blank}{line}{end}"
        stream += end
        expected.append("\n".join(lines).encode())
    if draw(st.booleans()):
        stream = stream.removesuffix(end)
    return stream.encode(), expected


@given(streams(), st.lists(st.integers(0, 200), max_size=8))
def test_events_do_not_depend_on_where_reads_are_cut(
    stream: tuple[bytes, list[bytes]], cuts: list[int]
) -> None:
    raw, expected = stream
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    reads = [raw[start:stop] for start, stop in pairwise(edges)]

    events = split(*reads)

    assert events == expected


@given(streams())
def test_one_byte_a_read_gives_the_same_events(stream: tuple[bytes, list[bytes]]) -> None:
    raw, expected = stream

    events = split(*(raw[index : index + 1] for index in range(len(raw))))

    assert events == expected


def test_separators_that_json_may_hold_do_not_end_a_line() -> None:
    line = 'data: {"x":"a\u2028b\u2029c\x85\x0b"}\n\n'.encode()

    assert split(line) == ['{"x":"a\u2028b\u2029c\x85\x0b"}'.encode()]


def test_byte_order_mark_and_empty_field_are_understood() -> None:
    assert split(b"\xef\xbb\xbfdata: a\n\ndata\n\n") == [b"a", b""]


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6))

    with pytest.raises(ValueError, match="bytes"):
        splitter.feed(b"x")
