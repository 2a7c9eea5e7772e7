"""Framed messages over a connected stream socket.

A frame is its length in 4 bytes, little endian, then one msgpack message. The engine side blocks;
the router's side feeds `FrameSplitter` from the event loop (`client.py`). The other process dying
is an end of file at once, raised as `PeerGone`. Nothing is ever unpickled.
"""

from __future__ import annotations

import select
import struct
from typing import TYPE_CHECKING

import msgspec

from tgi_cli.runtime.ipc.messages import FromEngine, ToEngine

if TYPE_CHECKING:
    import socket

_LENGTH = struct.Struct("<I")
_RECEIVE_BYTES = 1 << 18
MAX_FRAME_BYTES = 1 << 28  # far above any message; a longer one means the stream is broken

_encoder = msgspec.msgpack.Encoder()
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode


class PeerGone(Exception):
    """The process at the other end has closed its socket or died."""


def encode_frame(message: ToEngine | FromEngine) -> bytes:
    """Return the message with its length in front."""
    frame = bytearray(_LENGTH.size)
    _encoder.encode_into(message, frame, _LENGTH.size)
    _LENGTH.pack_into(frame, 0, len(frame) - _LENGTH.size)
    return bytes(frame)


class FrameSplitter:
    """Cut a byte stream into frames, whatever the sizes in which it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payload of every frame that `data` completes, in order.

        Raises:
            ValueError: a length above `MAX_FRAME_BYTES`.
        """
        self._buffer += data
        frames: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {length} bytes, limit {MAX_FRAME_BYTES}")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return frames


class EngineChannel:
    """The engine's end: blocking sends, and receives that return what is there."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._splitter = FrameSplitter()

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: FromEngine) -> None:
        """Send one message; blocks while the router is behind. Raises `PeerGone`."""
        try:
            self._sock.sendall(encode_frame(message))
        except OSError as exc:
            raise PeerGone from exc

    def receive(self, *, wait: bool, at_most_s: float | None = None) -> list[ToEngine]:
        """Return the messages that have arrived, in order.

        With `wait`, block until there is at least one, or for `at_most_s`. Raises `PeerGone` at
        the end of the stream.
        """
        messages: list[ToEngine] = []
        while True:
            block = wait and not messages
            if not select.select([self._sock], [], [], at_most_s if block else 0)[0]:
                return messages
            try:
                data = self._sock.recv(_RECEIVE_BYTES)
            except OSError as exc:
                raise PeerGone from exc
            if not data:
                raise PeerGone
            messages += [decode_to_engine(frame) for frame in self._splitter.feed(data)]

    def close(self) -> None:
        self._sock.close()
