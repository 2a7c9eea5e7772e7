from __future__ import annotations

import socket
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.ipc.channel import (
    MAX_FRAME_BYTES,
    EngineChannel,
    FrameSplitter,
    PeerGone,
    decode_to_engine,
    encode_frame,
)
from tgi_cli.runtime.ipc.messages import AbortRequest, NewRequest, ShutDown
from tgi_cli.runtime.types import SamplingParams

MESSAGES = [
    NewRequest(7, [1, 2, 300_000], 5, SamplingParams(temperature=0.5, seed=2**64 - 1), [9]),
    AbortRequest(7),
    ShutDown(),
]


@given(cuts=st.lists(st.integers(0, 200), max_size=20))
def test_frames_come_whole_however_the_bytes_arrive(cuts):
    raw = b"".join(map(encode_frame, MESSAGES))
    bounds = sorted({0, *(min(cut, len(raw)) for cut in cuts), len(raw)})
    splitter = FrameSplitter()

    frames = [frame for start, end in pairwise(bounds) for frame in splitter.feed(raw[start:end])]

    assert [decode_to_engine(frame) for frame in frames] == MESSAGES


def test_a_length_that_no_message_has_is_refused():
    with pytest.raises(ValueError, match="limit"):
        FrameSplitter().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


def test_receive_returns_what_is_there_in_order():
    ours, theirs = socket.socketpair()
    channel = EngineChannel(theirs)
    ours.sendall(b"".join(map(encode_frame, MESSAGES)))

    assert channel.receive(wait=True) == MESSAGES
    assert channel.receive(wait=False) == []
    ours.close()
    channel.close()


def test_the_peers_end_is_told_at_once():
    ours, theirs = socket.socketpair()
    channel = EngineChannel(theirs)
    ours.close()

    with pytest.raises(PeerGone):
        channel.receive(wait=True)
    channel.close()


def test_a_message_of_another_kind_is_refused():
    with pytest.raises(msgspec.ValidationError):
        decode_to_engine(msgspec.msgpack.encode([99, "x"]))
