"""Decide which sequences run in the next step, and for how many tokens.

With chunked prefill, `plan_step` serves running sequences first (decodes, then prefill chunks
already begun), then admits waiting ones while token budget, rows and blocks last. Without it, a
step is either one token of every running sequence or the whole prompts of newcomers;
`waiting_served_ratio` and `max_waiting_tokens` say when those may interrupt the others.

It owns no tensors and starts no work: `WaitingQueue` says who is next, `BlockManager` grants KV
blocks, the runner executes the plan. Budgets and lengths are tokens.

Admission promises a sequence its prompt and its next `reserved_new_tokens` (spec/scheduling.md
section 2.1). One that grows past its promise takes blocks that nobody was promised, or else the
newest running sequence is preempted: its blocks are freed and it is computed again later, from
the same ids, so that its text doesn't change.

Iteration-level batching: Orca (OSDI 2022). Chunked prefill: Sarathi-Serve (OSDI 2024).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tgi_cli.runtime.engine.block_manager import BlockManager
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.queue import WaitingQueue
from tgi_cli.runtime.engine.sequence import NO_ROW, Sequence
from tgi_cli.runtime.types import JoinReason


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    max_step_tokens: int  # prefill and decode together, one forward pass; prefill without chunking
    max_running: int  # sequences holding KV blocks at once
    reserved_new_tokens: int = 1024  # of output, promised at admission
    prefill_chunking: bool = True
    # These two say, without chunking, when newcomers may interrupt the running sequences.
    waiting_served_ratio: float = 0.3  # of waiting to running: so many may at once
    max_waiting_tokens: int = 20  # decode steps after which any may


class Scheduler:
    def __init__(self, config: SchedulerConfig, blocks: BlockManager) -> None:
        assert config.max_step_tokens >= 1, config
        assert config.max_running >= 1, config
        self._config = config
        self._blocks = blocks
        self._queue = WaitingQueue(
            blocks,
            reserved_new_tokens=config.reserved_new_tokens,
            prefill_chunking=config.prefill_chunking,
        )
        self._running: list[Sequence] = []  # oldest first
        self._by_id: dict[int, Sequence] = {}
        self._free_rows = list(range(config.max_running - 1, -1, -1))
        self._num_decodes = 0  # steps since somebody was admitted
        self._owes_decode = False  # whether somebody joined since the running ones had a token

    @property
    def has_work(self) -> bool:
        return bool(self._by_id)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def sequences(self) -> list[Sequence]:
        return list(self._by_id.values())

    def add(self, seq: Sequence) -> None:
        assert seq.request_id not in self._by_id, seq
        assert seq.num_tokens + seq.num_remaining_tokens <= self._blocks.num_tokens_capacity, seq
        self._by_id[seq.request_id] = seq
        self._queue.append(seq)

    def remove(self, request_id: int) -> None:
        """Forget a sequence, finished or not or unknown, and free what it holds."""
        seq = self._by_id.pop(request_id, None)
        if seq is None:
            return
        if seq.row == NO_ROW:
            self._queue.remove(seq)
        else:
            self._take_off(seq)
            self._blocks.free(seq)

    def remove_failed(self, seq: Sequence, *, distrusts_prefix: bool) -> None:
        """Forget a sequence whose step failed; nothing that it computed is used again."""
        del self._by_id[seq.request_id]
        if seq.row == NO_ROW:
            self._queue.remove(seq)
        else:
            self._take_off(seq)
            self._blocks.free_failed(seq, distrusts_prefix=distrusts_prefix)

    def plan_step(self, *, may_preempt: bool = True) -> StepPlan:
        """Choose the chunks of the next step; blocks for them are granted when this returns.

        While a step runs, none of its sequences may be preempted: it still writes to their blocks.
        Without `may_preempt`, one that finds no block is left out and the plan is short.
        """
        due = [seq for seq in self._running if seq.is_due]
        if self._config.prefill_chunking:
            return self._plan_together(due, may_preempt)
        return self._plan_apart(due, may_preempt)

    def _plan_together(self, due: list[Sequence], may_preempt: bool) -> StepPlan:
        plan = StepPlan(budget=self._config.max_step_tokens)
        self._extend(plan, due, may_preempt)
        # Admitting in a step that had to preempt would thrash.
        if not plan.preempted and not plan.is_short:
            self._admit(plan, 0, JoinReason.CHUNKING)
        return plan

    def _plan_apart(self, due: list[Sequence], may_preempt: bool) -> StepPlan:
        unfinished = [seq for seq in due if not seq.is_decoding]
        if not unfinished and not (due and self._owes_decode):
            plan = StepPlan(budget=self._config.max_step_tokens)
            # TGI counts the step in which somebody was admitted as the first that others waited.
            if self._num_decodes + 1 >= self._config.max_waiting_tokens:
                self._admit(plan, 0, JoinReason.WAIT_EXCEEDED)
            else:
                min_size = int(len(due) * self._config.waiting_served_ratio)
                self._admit(plan, min_size, JoinReason.BACKPRESSURE)
            if plan.chunks:
                self._num_decodes = 0
                self._owes_decode = plan.join_reason is not None
                return plan
        # The budget is for prompts: of those who decode, each gets its token.
        plan = StepPlan(budget=max(self._config.max_step_tokens, len(due)))
        self._extend(plan, unfinished or due, may_preempt)
        if due and not unfinished:
            self._num_decodes += 1
            self._owes_decode = False
        return plan

    def _extend(self, plan: StepPlan, due: list[Sequence], may_preempt: bool) -> None:
        # A prompt must not take the budget of those who only want one token: decodes go first.
        pending = deque(sorted(due, key=lambda seq: not seq.is_decoding))
        while pending and plan.budget > 0:
            seq = pending.popleft()
            num_tokens = min(seq.num_uncomputed_tokens, plan.budget)
            while not self._blocks.can_grow(seq, num_tokens):
                if not may_preempt:
                    plan.is_short = True
                    break
                victim = self._newest_unplanned(plan) or seq
                self._preempt(victim, plan)
                if victim is seq:
                    break
                if victim in pending:
                    pending.remove(victim)
            else:
                plan.add(seq, num_tokens, self._blocks.grow(seq, num_tokens))

    def _newest_unplanned(self, plan: StepPlan) -> Sequence | None:
        """Return the newest running sequence that isn't in the plan: it loses least."""
        planned = {seq.request_id for seq in plan.sequences}
        for seq in reversed(self._running):
            if seq.request_id not in planned:
                return seq
        return None

    def _preempt(self, seq: Sequence, plan: StepPlan) -> None:
        self._take_off(seq)
        self._blocks.free(seq)
        self._queue.put_back(seq)
        plan.preempted.append(seq)

    def _admit(self, plan: StepPlan, min_size: int, reason: JoinReason) -> None:
        had_running = any(seq.is_due for seq in self._running)
        newcomers = self._queue.next_batch(
            min_size=min_size, max_size=len(self._free_rows), prefill_budget=plan.budget
        )
        for seq, num_tokens in newcomers:
            seq.row = self._free_rows.pop()
            self._running.append(seq)
            if not seq.started and self._blocks.looks_up(seq):
                plan.num_prefix_query_tokens += seq.num_prompt_tokens
                plan.num_prefix_hit_tokens += min(seq.num_computed_tokens, seq.num_prompt_tokens)
            shared = list(seq.block_table)
            plan.add(seq, num_tokens, shared + self._blocks.grow(seq, num_tokens))
        plan.num_joined = len(newcomers)
        plan.join_reason = reason if newcomers and had_running else None

    def _take_off(self, seq: Sequence) -> None:
        self._running.remove(seq)
        self._free_rows.append(seq.row)
        seq.row = NO_ROW

    def check_integrity(self) -> None:
        """Assert that queue, rows and blocks agree. For tests."""
        self._blocks.check_integrity(self._by_id.values())
        waiting = list(self._queue)
        assert {seq.request_id for seq in (*waiting, *self._running)} == self._by_id.keys()
        assert len(waiting) + len(self._running) == len(self._by_id)
        rows = [seq.row for seq in self._running]
        assert sorted(rows + self._free_rows) == list(range(self._config.max_running))
        assert all(seq.row == NO_ROW and not seq.block_table for seq in waiting)
