"""What a worker sees of itself: is it the client that is slow? Spec: bench.md section 11."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

from tgi_cli.runtime.bench.pacing import Pacer
from tgi_cli.runtime.bench.records import WorkerSample
from tgi_cli.runtime.bench.tally import Tally

_PROBE_S = 0.01
_SLICE_NS = 1_000_000_000
_CLOCK_JUMP_S = 0.5  # by which the two clocks may part within a slice


class SelfWatch:
    """Samples the loop's lag, the processor's share and the collector, slice by slice."""

    def __init__(self, clock: Callable[[], int], pacer: Pacer, tally: Tally) -> None:
        self._clock = clock
        self._pacer = pacer
        self._tally = tally
        self.samples: list[WorkerSample] = []
        self.cpu_share = 0.0
        self.clock_jumped = False
        self._gc_start = 0
        self._gc_pause = 0

    async def run(self) -> None:
        """Sample until it is cancelled."""
        gc.callbacks.append(self._collector)
        try:
            while True:
                await self._slice()
        finally:
            gc.callbacks.remove(self._collector)

    async def _slice(self) -> None:
        start, cpu, idle = self._clock(), time.process_time_ns(), self._pacer.idle_ns
        wall, steady = time.time(), time.perf_counter()
        events, deliveries = self._tally.num_tokens, self._tally.num_deliveries
        lags: list[int] = []
        self._gc_pause = 0
        now = start
        try:
            while now - start < _SLICE_NS:
                await asyncio.sleep(_PROBE_S)
                before, now = now, self._clock()
                lags.append(max(now - before - int(_PROBE_S * 1e9), 0))
        finally:  # the last slice is a short one
            now = self._clock()
            spun = self._pacer.idle_ns - idle
            busy = max(time.process_time_ns() - cpu - spun, 0)
            self.cpu_share = busy / max(now - start, 1)
            parted_s = (time.time() - wall) - (time.perf_counter() - steady)
            self.clock_jumped |= abs(parted_s) > _CLOCK_JUMP_S
            if lags:
                self.samples.append(
                    WorkerSample(
                        at=now,
                        loop_lags=lags,
                        cpu_share=self.cpu_share,
                        gc_pause=self._gc_pause,
                        num_events=self._tally.num_tokens - events,
                        num_deliveries=self._tally.num_deliveries - deliveries,
                    )
                )

    def _collector(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._gc_start = time.perf_counter_ns()
        else:
            self._gc_pause = max(self._gc_pause, time.perf_counter_ns() - self._gc_start)
