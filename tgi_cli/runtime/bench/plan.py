"""The requests of a stage, with absolute times and finished bodies, made before it begins.

    schedule ─► times ┐
    source ─► inputs ─┴─► bodies ─► PlannedRequest, in the order of the schedule

In an open loop the plan is whole: it goes on after the window as long as answers may be late, so
that the load stays up (`keeps_tail_load`). In a closed loop nobody knows how many requests will
be sent: the bench asks for as many as it may need, and for more when they run short.
Spec: bench.md sections 6, 7 and 8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import Codec
from tgi_cli.runtime.bench.conversations import ConversationSource
from tgi_cli.runtime.bench.inputs import Input, InputSource, as_token_ids
from tgi_cli.runtime.bench.schedule import arrival_times
from tgi_cli.runtime.bench.stages import BodyMaker, PlannedRequest, StageSpec
from tgi_cli.runtime.bench.streams import PlanPhase, Streams
from tgi_cli.runtime.bench.traces import TraceSource
from tgi_cli.runtime.config.bench.forms import Cancel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENDLESS = 1 << 62


class StagePlanner:
    """Makes the plans of one stage: `times` and `requests` for its warm-up and its window."""

    def __init__(
        self,
        spec: StageSpec,
        source: InputSource | ConversationSource,
        make_body: BodyMaker,
        *,
        seed: int,
        nonce: str | None,
        cancel: Cancel | None = None,
        token_ids_codec: Codec | None = None,
    ) -> None:
        """Take what the plan is made of.

        `nonce` differs from run to run of the stage, None for `--prefix-cache allow`;
        `token_ids_codec` makes token ids of the texts (`--send-token-ids`).
        """
        self._spec = spec
        self._source = source
        self._make_body = make_body
        self._seed = seed
        self._nonce = nonce
        self._cancel = cancel
        self._token_ids_codec = token_ids_codec

    def times(self, phase: PlanPhase) -> NDArray[np.float64] | None:
        """Return when each request leaves, in seconds from the phase's start.

        Those of the window come first, then those that keep the load up after it. None for a
        closed loop. Of conversations these are the starts.
        """
        spec = _warmup_spec(self._spec) if phase == "warmup" else self._spec
        if spec.is_closed_loop:
            return None
        if spec.kind == "offline":
            return np.zeros(spec.num_requests or 0)
        if spec.kind == "trace":
            return self._trace_times(spec)
        return _with_tail(spec, self._streams(phase).of("arrivals"))

    def phase(self, phase: PlanPhase, first_count: int = 0) -> PhasePlan:
        """Return a phase's plan; of a closed loop with the first `first_count` requests."""
        return PhasePlan(self, phase, first_count)

    def requests(
        self,
        phase: PlanPhase,
        times: NDArray[np.float64] | None,
        start: int,
        stop: int,
    ) -> list[PlannedRequest]:
        """Return requests `start` to `stop`. Of conversations, all turns of each.

        Fewer only where the source ends.
        """
        if stop <= start:
            return []
        streams = self._streams(phase)
        if isinstance(self._source, ConversationSource):
            return self._conversations(self._source, streams, times, start, stop - start)
        inputs = self._source.inputs(streams, start, stop - start)
        if self._token_ids_codec is not None:
            inputs = as_token_ids(inputs, self._token_ids_codec)
        hang_ups = self._hang_ups(streams.of("cancel").random(stop)[start:])
        return [
            self._planned(
                each,
                index=start + number,
                sched_s=None if times is None else float(times[start + number]),
                cancel_after_s=hang_ups[number],
            )
            for number, each in enumerate(inputs)
        ]

    def most(self, phase: PlanPhase) -> int:
        """Return how many requests, or conversations, a closed loop can have."""
        if phase == "warmup":
            return self._spec.warmup_requests or _ENDLESS
        if self._spec.keeps_tail_load or self._spec.num_requests is None:
            return _ENDLESS
        return self._spec.num_requests

    def primers(self) -> list[PlannedRequest]:
        """Return what `--prefix-cache prime` sends before the window: each shared prefix."""
        if isinstance(self._source, ConversationSource):
            return []
        primers = self._source.primers(self._streams("measure"))
        if self._token_ids_codec is not None:
            primers = as_token_ids(primers, self._token_ids_codec)
        return [self._planned(each, index=number) for number, each in enumerate(primers)]

    def _streams(self, phase: PlanPhase) -> Streams:
        return Streams(self._seed, self._spec.key, phase, self._nonce)

    def _trace_times(self, spec: StageSpec) -> NDArray[np.float64]:
        if not isinstance(self._source, TraceSource):
            raise UsageError("--trace: its inputs are missing.")
        times = np.array([entry.at_s for entry in self._source.entries])
        if spec.duration_s is not None:
            times = times[times < spec.duration_s]
        return times[: spec.num_requests]

    def _hang_ups(self, drawn: NDArray[np.float64]) -> list[float | None]:
        cancel = self._cancel
        if cancel is None:
            return [None] * len(drawn)
        return [cancel.after_s if each < cancel.share else None for each in drawn]

    def _planned(
        self,
        each: Input,
        *,
        index: int,
        sched_s: float | None = None,
        think_s: float | None = None,
        cancel_after_s: float | None = None,
    ) -> PlannedRequest:
        return PlannedRequest(
            index=index,
            sched_s=sched_s,
            body=self._make_body(each.prompt, each.output_tokens),
            input_tokens=each.input_tokens,
            output_tokens=each.output_tokens,
            conversation=each.conversation,
            turn=each.turn,
            think_s=think_s,
            answer=each.answer,
            cancel_after_s=cancel_after_s,
        )

    def _conversations(
        self,
        source: ConversationSource,
        streams: Streams,
        times: NDArray[np.float64] | None,
        start: int,
        count: int,
    ) -> list[PlannedRequest]:
        """Return the turns of each conversation one after the other.

        Only a first turn has a time, and only in an open loop. Indices leave room for the turns
        of the longest conversation, so that they don't depend on what came before.
        """
        planned: list[PlannedRequest] = []
        for number, turns in enumerate(source.conversations(streams, start, count), start):
            hang_ups = self._hang_ups(streams.of("cancel", number).random(len(turns)))
            for place, turn in enumerate(turns):
                at = float(times[number]) if times is not None and place == 0 else None
                planned.append(
                    self._planned(
                        turn,
                        index=number * source.max_turns + place,
                        sched_s=at,
                        think_s=self._spec.think_time_s if place > 0 else None,
                        cancel_after_s=hang_ups[place],
                    )
                )
        return planned


class PhasePlan:
    """The requests of a warm-up or a window. An open loop's are all there; users get more."""

    def __init__(self, planner: StagePlanner, phase: PlanPhase, first_count: int) -> None:
        self._planner = planner
        self._phase = phase
        self._times = planner.times(phase)
        is_open = self._times is not None
        self._most = planner.most(phase) if self._times is None else len(self._times)
        self._num_made = 0
        self.is_whole = False
        self.requests = self.more(self._most if is_open else first_count)

    def more(self, count: int) -> list[PlannedRequest]:
        """Return the `count` requests that follow, or those that are left."""
        start, stop = self._num_made, min(self._num_made + count, self._most)
        self._num_made = stop
        self.is_whole = stop == self._most
        return self._planner.requests(self._phase, self._times, start, stop)


def _warmup_spec(spec: StageSpec) -> StageSpec:
    """Return the load of a warm-up: that of the stage, at a ramp's first rate."""
    spec = msgspec.structs.replace(
        spec,
        duration_s=None if spec.warmup_requests else spec.warmup_s,
        num_requests=spec.warmup_requests,
        keeps_tail_load=False,
    )
    if spec.kind == "ramp" and spec.ramp_kind == "rate":
        return msgspec.structs.replace(spec, kind="rate", ramp_to=None, ramp_kind=None)
    return spec


def _with_tail(spec: StageSpec, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the arrivals of the window, and of the drain if the load is kept up.

    The tail has at most as many requests as the window: they are made beforehand, and a server
    that needs longer than the window for what it was sent has no steady state to keep.
    """
    until_s = math.inf if spec.duration_s is None else spec.duration_s
    if until_s == 0 or (spec.value == 0 and spec.ramp_to is None):
        return np.empty(0)
    drain_s = spec.drain_s if spec.keeps_tail_load else 0.0
    most = None
    if spec.num_requests is not None:
        most = spec.num_requests + (spec.num_requests if drain_s else 0)
    times = arrival_times(spec, generator, until_s=until_s + drain_s, max_count=most)
    in_window = times[: spec.num_requests]
    in_window = in_window[in_window < until_s]
    if not drain_s or not len(in_window):
        return in_window
    end_s = float(in_window[-1]) if len(in_window) == spec.num_requests else until_s
    tail = times[len(in_window) : 2 * len(in_window)]
    return np.concatenate([in_window, tail[tail < end_s + drain_s]])
