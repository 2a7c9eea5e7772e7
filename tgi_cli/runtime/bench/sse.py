"""Cut a stream of server-sent events into the payloads of its events, whatever the reads.

WHATWG HTML, section 9.2.6, with one exception: a line ends with LF or CR LF, never with CR alone.
Only `data` fields count: comments, names, ids and retry times are passed over.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 1 << 24
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventSplitter:
    """Feed it what was read; it returns the payload of each event that this completed."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the line that hasn't ended yet
        self._num_bytes = 0  # of the event that hasn't ended yet
        self._data: list[bytes] = []  # the `data` fields of that event
        self._at_start = True

    def feed(self, read: bytes) -> list[bytes]:
        """Return the payloads that `read` completes, in order.

        Raises:
            ValueError: an event above `MAX_EVENT_BYTES`.
        """
        lines = read.split(b"\n")
        rest = lines.pop()
        events: list[bytes] = []
        for line in lines:
            if self._pieces:
                line = b"".join((*self._pieces, line))
                self._pieces.clear()
            self._take(line, events)
        if rest:
            self._pieces.append(rest)
            self._num_bytes += len(rest)
            if self._num_bytes > MAX_EVENT_BYTES:
                raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[bytes]:
        """Return the event that the end of the stream completes: the last blank line may lack."""
        events: list[bytes] = []
        if self._pieces:
            line = b"".join(self._pieces)
            self._pieces.clear()
            self._take(line, events)
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.endswith(b"\r"):
            line = line[:-1]
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            self._num_bytes += len(line)
            if self._num_bytes > MAX_EVENT_BYTES:
                raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        elif line == b"data":  # a field without a value
            self._data.append(b"")
        elif not line:
            if self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
            self._num_bytes = 0
