"""A client process: takes its part of the plan, sends it, and hands back what it saw.

`python -m tgi_cli.runtime.bench.worker FD`, with the bench at the other end of the socket FD. It
ends when the bench does. Spec: bench.md sections 6, 8 and 11.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time

from tgi_cli.runtime.bench.counting import PackedDeliveries
from tgi_cli.runtime.bench.exchange import Exchanges
from tgi_cli.runtime.bench.loops import LoadLoop, PlanQueue
from tgi_cli.runtime.bench.messages import (
    Begin,
    Crashed,
    Done,
    EndWindow,
    Finish,
    Finished,
    FinishedRequest,
    FromWorker,
    Load,
    OpenConnections,
    Opened,
    SetUp,
    Tick,
    receive_in_worker,
    send,
)
from tgi_cli.runtime.bench.pacing import Pacer
from tgi_cli.runtime.bench.protocols import PROTOCOLS
from tgi_cli.runtime.bench.self_watch import SelfWatch
from tgi_cli.runtime.bench.tally import Tally
from tgi_cli.runtime.bench.transport import Transport

_TICK_S = 0.25
_SLICE_REQUESTS = 200  # handed back in one message


class Worker:
    """One process's state, from `SetUp` to the end."""

    def __init__(self, set_up: SetUp, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._index = set_up.worker
        self._busy_s = set_up.busy_s
        origin = set_up.origin
        self._clock = lambda: time.perf_counter_ns() - origin
        self._transport = Transport(set_up.transport, self._clock)
        self._protocol = PROTOCOLS[set_up.protocol](set_up.body)
        self._exchanges = Exchanges(
            self._transport,
            self._protocol,
            set_up.timeouts,
            self._clock,
            streams=set_up.body.streams,
            num_retries_429=set_up.num_retries_429,
        )
        self._pacer = Pacer(self._clock, origin)
        self._plan = PlanQueue()
        self._loop: LoadLoop | None = None
        self._watch = SelfWatch(self._clock, self._pacer, self._exchanges.tally)
        self._tasks: list[asyncio.Task[None]] = []
        self._forever = [asyncio.create_task(self._exchanges.watch_deadlines())]
        if self._busy_s:
            self._forever.append(asyncio.create_task(self._waste_time()))

    async def take(self, message: Load | OpenConnections | Begin | EndWindow | Finish) -> None:
        """Act on a message of the bench."""
        match message:
            case Load():
                self._plan.add(message.requests, is_last=message.is_last)
            case OpenConnections():
                await self._transport.open(message.count)
                self._send(Opened())
            case Begin():
                self._begin(message)
            case EndWindow():
                if self._loop is not None:
                    self._loop.end_window(message.at)
            case Finish():
                await self._finish()

    def _begin(self, begin: Begin) -> None:
        exchanges = self._exchanges
        exchanges.tally = Tally()
        cap = begin.max_concurrency
        exchanges.gate = None if cap is None else asyncio.Semaphore(cap)
        self._watch = SelfWatch(self._clock, self._pacer, exchanges.tally)
        self._loop = LoadLoop(
            begin,
            self._plan,
            exchanges,
            self._protocol,
            self._pacer,
            self._clock,
            self._index,
            self._crash,
        )
        gc.collect()
        gc.freeze()
        gc.disable()
        work = (self._run_loop(self._loop), self._watch.run(), self._tick_on(self._loop))
        self._tasks = [asyncio.create_task(each) for each in work]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        self._send(Crashed(message=f"{type(error).__name__}: {error}"))

    async def _run_loop(self, loop: LoadLoop) -> None:
        await loop.run()
        self._tick(loop)

    async def _tick_on(self, loop: LoadLoop) -> None:
        """Send the counters four times a second, and at once when the window is over."""
        # Not `wait_for`, which loses a cancellation that comes together with the event.
        is_over = asyncio.create_task(loop.window_is_over.wait())
        try:
            while True:
                if is_over.done():
                    await asyncio.sleep(_TICK_S)
                else:
                    await asyncio.wait([is_over], timeout=_TICK_S)
                self._tick(loop)
        finally:
            is_over.cancel()

    def _tick(self, loop: LoadLoop) -> None:
        exchanges, tally = self._exchanges, self._exchanges.tally
        ttft, itl, lag = tally.take_histograms()
        wanted = "warmup" if loop.is_warmup else "measure"
        self._send(
            Tick(
                num_left=len(self._plan),
                num_sent=tally.num_sent,
                num_in_flight=sum(each.record.gate is not None for each in exchanges.open),
                num_measured_open=sum(each.record.phase == wanted for each in exchanges.open),
                num_ok=tally.num_ok,
                num_failed_in_a_row=tally.num_failed_in_a_row if tally.num_ok == 0 else 0,
                failures=tally.failures,
                num_tokens=tally.num_tokens,
                num_input_tokens=tally.num_input_tokens,
                sum_e2e=tally.sum_e2e,
                window_end=loop.window_end,
                ttft=ttft,
                itl=itl,
                lag=lag,
                cpu_share=self._watch.cpu_share,
                message=tally.first_message,
            )
        )

    async def _finish(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.stop()
        await self._exchanges.finish_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        gc.enable()
        gc.unfreeze()
        done, self._exchanges.done = self._exchanges.done, []
        while done:
            part, done = done[:_SLICE_REQUESTS], done[_SLICE_REQUESTS:]
            self._send(Finished(requests=[exchange.finished() for exchange in part]))
            await self._writer.drain()
        if loop is not None and (unsent := loop.never_sent()):
            nothing = PackedDeliveries()
            self._send(
                Finished(
                    requests=[
                        FinishedRequest(record=record, deliveries=nothing) for record in unsent
                    ]
                )
            )
        self._send(Done(samples=self._watch.samples, clock_jumped=self._watch.clock_jumped))
        self._plan = PlanQueue()
        self._loop = None

    async def _waste_time(self) -> None:
        while True:
            until = time.perf_counter() + self._busy_s
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0.01)

    def _send(self, message: FromWorker) -> None:
        send(self._writer, message)

    async def close(self) -> None:
        for task in (*self._tasks, *self._forever):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._forever, return_exceptions=True)
        self._pacer.close()
        await self._transport.close()


async def _serve(descriptor: int) -> None:
    bench = socket.socket(fileno=descriptor)
    reader, writer = await asyncio.open_connection(sock=bench)
    set_up = await receive_in_worker(reader)
    if set_up is None:
        return
    assert isinstance(set_up, SetUp), set_up
    worker = Worker(set_up, writer)
    try:
        while (message := await receive_in_worker(reader)) is not None:
            assert not isinstance(message, SetUp)
            await worker.take(message)
    except Exception as exc:  # the edge of the process: the bench says it, then stops
        send(writer, Crashed(message=f"{type(exc).__name__}: {exc}"))
        await writer.drain()
    finally:
        await worker.close()
        writer.close()


def main() -> None:
    """Serve the bench at the other end of the descriptor given as the only argument."""
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
