"""What the bench and its worker processes say to each other, and how it is framed.

A frame is its length in 4 bytes, little endian, then one msgpack message. The other process dying
is an end of file at once. Nothing is ever unpickled. Times are ns from the run's start.
"""

from __future__ import annotations

import asyncio
import struct

import msgspec

from tgi_cli.runtime.bench.counting import PackedDeliveries
from tgi_cli.runtime.bench.protocols import BodyOptions, ProtocolName
from tgi_cli.runtime.bench.records import RequestRecord, WorkerSample
from tgi_cli.runtime.bench.stages import PlannedRequest, StageSpec
from tgi_cli.runtime.bench.transport import TransportOptions

_LENGTH = struct.Struct("<I")


class ToWorker(msgspec.Struct, tag=True, kw_only=True):
    """A message from the bench to a worker."""


class FromWorker(msgspec.Struct, tag=True, kw_only=True):
    """A message from a worker to the bench."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; None: never."""

    first_token_s: float | None = 300.0  # from the sending
    idle_s: float | None = 60.0  # between deliveries
    total_s: float | None = None


class SetUp(ToWorker):
    worker: int
    num_workers: int
    origin: int  # the run's start on the machine's monotonic clock
    protocol: ProtocolName
    body: BodyOptions
    transport: TransportOptions
    timeouts: Timeouts
    num_retries_429: int = 0
    busy_s: float = 0.0  # tests slow a worker down with it: time wasted every 10 ms


class Load(ToWorker):
    """More of the plan, in the order of its schedule."""

    requests: list[PlannedRequest]
    is_last: bool  # nothing comes after it


class OpenConnections(ToWorker):
    """Open them before the window; answered by `Opened`."""

    count: int


class User(msgspec.Struct, array_like=True):
    """A virtual user. Seconds from the phase's start."""

    number: int
    start_s: float
    stop_s: float | None  # None: at the stage's end


class Begin(ToWorker):
    """Start a phase: warm-up, or the measured window with what follows it."""

    spec: StageSpec
    is_warmup: bool
    start: int  # times of the plan count from it
    until: int | None  # when the window ends; None: with the plan's last request
    num_requests: int | None = None  # of the window, for this worker; None: without limit
    users: list[User] = []  # of a closed loop, those of this worker
    max_concurrency: int | None = None  # for this worker


class EndWindow(ToWorker):
    """Whatever is planned from `at` on is no longer measured."""

    at: int


class Finish(ToWorker):
    """Send nothing more, hang up on what is open, report: answered by `Finished` and `Done`."""


class Opened(FromWorker):
    pass


class Tick(FromWorker):
    """The counters of a worker, four times a second and when its window has run out.

    Histograms hold one bucket an eighth of an octave of microseconds: bucket `8 * log2(us)`.
    """

    num_left: int  # of the plan
    num_sent: int
    num_in_flight: int
    num_measured_open: int  # of the window: not ended yet, or not even sent
    num_ok: int
    num_failed_in_a_row: int  # at the very start, without one that was well
    failures: dict[str, int]
    num_tokens: int
    num_input_tokens: int  # of requests that were well
    sum_e2e: int  # ns, of the same
    window_end: int | None  # when the window ran out of requests or of time
    ttft: dict[int, int]  # bucket: count, since the last tick
    itl: dict[int, int]
    lag: dict[int, int]
    cpu_share: float
    message: str | None = None  # of the first failure


class FinishedRequest(msgspec.Struct, kw_only=True, array_like=True):
    record: RequestRecord
    deliveries: PackedDeliveries


class Finished(FromWorker):
    requests: list[FinishedRequest]


class Done(FromWorker):
    samples: list[WorkerSample]
    clock_jumped: bool = False


class Crashed(FromWorker):
    """The worker has failed on its own; it ends."""

    message: str


_Incoming = SetUp | Load | OpenConnections | Begin | EndWindow | Finish
_Outgoing = Opened | Tick | Finished | Done | Crashed
_decode_to_worker = msgspec.msgpack.Decoder(_Incoming).decode
_decode_from_worker = msgspec.msgpack.Decoder(_Outgoing).decode
_encode = msgspec.msgpack.Encoder().encode


def send(writer: asyncio.StreamWriter, message: ToWorker | FromWorker) -> None:
    """Queue one message; the loop sends it as the other side takes it."""
    payload = _encode(message)
    writer.write(_LENGTH.pack(len(payload)) + payload)


async def _receive(reader: asyncio.StreamReader) -> bytes | None:
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None


async def receive_in_worker(reader: asyncio.StreamReader) -> _Incoming | None:
    """Return the next message; None when the bench is gone."""
    payload = await _receive(reader)
    return None if payload is None else _decode_to_worker(payload)


async def receive_from_worker(reader: asyncio.StreamReader) -> _Outgoing | None:
    """Return the next message; None when the worker is gone."""
    payload = await _receive(reader)
    return None if payload is None else _decode_from_worker(payload)
