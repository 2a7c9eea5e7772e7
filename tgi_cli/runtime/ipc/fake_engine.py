"""An engine without a model: the same channel, the same messages, tokens from arithmetic.

For tests, for measuring the router alone, and for trying a client: `tgi serve --engine fake`. The
next token is a function of prompt and position, so runs repeat. It batches as the real engine
does: one StepOutput per step for everything that runs.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from dataclasses import dataclass

from tgi_cli.runtime.ipc.channel import EngineChannel, PeerGone
from tgi_cli.runtime.ipc.messages import (
    AbortRequest,
    EngineReady,
    NewRequest,
    PromptScore,
    RequestFailed,
    SequenceOutput,
    ShutDown,
    StartEngine,
    StepOutput,
    StepStats,
    ToEngine,
    TokenScore,
)
from tgi_cli.runtime.types import FinishReason, JoinReason


@dataclass(frozen=True, slots=True)
class FakeScript:
    """What the fake does. The defaults generate until the length that was asked for."""

    token_ids: tuple[int, ...] = tuple(range(33, 120))  # cycled through
    step_s: float = 0.0
    eos_token_id: int | None = None  # sent in place of the token number `eos_after`
    eos_after: int = 1 << 62
    # In place of `token_ids`: each request gets the next of these, then `eos_token_id`.
    replies: tuple[tuple[int, ...], ...] = ()
    fail_prompts_of: int | None = None  # requests with this many prompt tokens fail
    fails: bool = False  # every request fails
    die_at_step: int | None = None
    logprobs: tuple[float, ...] = (-0.5,)  # each request gets the next, for all of its tokens
    clock_logprobs: bool = False  # each log-probability is minus the time.monotonic() of its step


@dataclass(slots=True)
class _Running:
    request: NewRequest
    logprobs: list[float]  # of each step's one token
    reply: tuple[int, ...] | None = None
    num_tokens: int = 0
    is_new: bool = True


class FakeEngine:
    def __init__(self, channel: EngineChannel, script: FakeScript) -> None:
        self._channel = channel
        self._script = script
        self._running: dict[int, _Running] = {}
        self._num_steps = 0
        self._num_requests = 0

    def serve(self) -> None:
        """Answer until told to stop, or until nobody is there any more."""
        try:
            first = self._channel.receive(wait=True)
            assert isinstance(first[0], StartEngine), first
            self._channel.send(EngineReady(1 << 20, 16, 0, 0.0, "none (fake engine)"))
            messages = first[1:]
            while all(self._handle(message) for message in messages):
                if self._running:
                    self._step()
                elif any(isinstance(message, AbortRequest) for message in messages):
                    self._report([], [], [], time.monotonic_ns(), 0)
                messages = self._channel.receive(wait=not self._running)
        except PeerGone:
            pass
        finally:
            self._channel.close()

    def _handle(self, message: ToEngine) -> bool:
        """Take in one message; return whether to go on."""
        match message:
            case NewRequest():
                replies, logprobs = self._script.replies, self._script.logprobs
                reply = replies[self._num_requests % len(replies)] if replies else None
                logprob = logprobs[self._num_requests % len(logprobs)]
                self._num_requests += 1
                running = _Running(message, [logprob], reply, len(message.output_ids))
                self._running[message.request_id] = running
            case AbortRequest():
                self._running.pop(message.request_id, None)
            case ShutDown():
                return False
        return True

    def _step(self) -> None:
        start_ns = time.monotonic_ns()
        if self._num_steps == self._script.die_at_step:
            os._exit(1)
        if self._script.step_s:
            time.sleep(self._script.step_s)
        self._num_steps += 1
        num_prefill_tokens = sum(
            len(r.request.prompt_ids) for r in self._running.values() if r.is_new
        )
        batch = list(self._running.values())
        clock = [-time.monotonic()] if self._script.clock_logprobs else None
        started = [r.request.request_id for r in batch if r.is_new]
        outputs: list[SequenceOutput] = []
        failures: list[RequestFailed] = []
        for running in batch:
            request = running.request
            if self._script.fails or len(request.prompt_ids) == self._script.fail_prompts_of:
                failures.append(RequestFailed(request.request_id, "Server error: as scripted"))
                del self._running[request.request_id]
            else:
                outputs.append(self._next_output(running, clock))
        self._report(outputs, failures, started, start_ns, num_prefill_tokens)

    def _report(
        self,
        outputs: list[SequenceOutput],
        failures: list[RequestFailed],
        started: list[int],
        start_ns: int,
        num_prefill_tokens: int,
    ) -> None:
        batch_size = len(outputs) + len(failures)
        stats = StepStats(
            is_prefill=num_prefill_tokens > 0,
            num_prefill_tokens=num_prefill_tokens,
            num_decode_tokens=batch_size - len(started),
            batch_size=batch_size,
            num_joined=len(started),
            num_running=len(self._running),
            num_waiting=0,
            num_blocks_used=len(self._running),
            num_reserved_tokens=16 * len(self._running),
            num_preempted=0,
            forward_s=self._script.step_s,
            sample_s=0.0,
            step_s=(time.monotonic_ns() - start_ns) / 1e9,
            join_reason=JoinReason.CHUNKING if 0 < len(started) < batch_size else None,
        )
        self._channel.send(StepOutput(outputs, failures, started, start_ns, stats))

    def _next_output(self, running: _Running, clock: list[float] | None) -> SequenceOutput:
        request, script = running.request, self._script
        logprobs = clock or running.logprobs
        prompt_scores = _score_prompt(request) if running.is_new else []
        running.is_new = False
        choices = script.token_ids
        token_id = choices[(len(request.prompt_ids) + running.num_tokens) % len(choices)]
        reason = None
        eos_after = script.eos_after
        if running.reply is not None:
            eos_after = len(running.reply)
            token_id = running.reply[min(running.num_tokens, eos_after - 1)]
        if running.num_tokens == eos_after and script.eos_token_id is not None:
            token_id = script.eos_token_id
            reason = None if request.ignore_eos else FinishReason.EOS_TOKEN
        running.num_tokens += 1
        if running.num_tokens >= request.max_new_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            del self._running[request.request_id]
        return SequenceOutput(
            request.request_id,
            [token_id],
            logprobs,
            reason,
            [_best(token_id, logprobs[0], request.top_n_tokens)] if request.top_n_tokens else [],
            prompt_scores,
        )


def _best(token_id: int, logprob: float, count: int) -> list[TokenScore]:
    """Return `token_id` and those after it, each less likely than the one before."""
    return [TokenScore(token_id + rank, logprob - rank) for rank in range(count)]


def _score_prompt(request: NewRequest) -> list[PromptScore]:
    if not request.scores_prompt:
        return []
    return [
        PromptScore(-0.25, _best(token_id, -0.25, request.prompt_top_n))
        for token_id in request.prompt_ids[1:]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tgi-fake-engine")
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--clock-logprobs", action="store_true")
    args = parser.parse_args()
    channel = EngineChannel(socket.socket(fileno=args.channel_fd))
    FakeEngine(channel, FakeScript(step_s=args.step_s, clock_logprobs=args.clock_logprobs)).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
