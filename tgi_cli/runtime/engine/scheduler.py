"""Decide which sequences run in the next step, and for how many tokens.

`plan_step` serves running sequences first (decodes, then prefill chunks already begun), then
admits waiting ones, strictly first come first served, while token budget, rows and blocks last.
It owns no tensors and starts no work: `BlockManager` grants KV blocks, the runner executes the
plan. Budgets and lengths are tokens.

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
from tgi_cli.runtime.engine.sequence import NO_ROW, Sequence


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    max_step_tokens: int  # prefill and decode together, one forward pass
    max_running: int  # sequences holding KV blocks at once
    reserved_new_tokens: int = 1024  # of output, promised at admission


class Scheduler:
    def __init__(self, config: SchedulerConfig, blocks: BlockManager) -> None:
        assert config.max_step_tokens >= 1, config
        assert config.max_running >= 1, config
        self._config = config
        self._blocks = blocks
        self._waiting: deque[Sequence] = deque()  # by arrival; preempted ones rejoin at the front
        self._running: list[Sequence] = []  # oldest first
        self._by_id: dict[int, Sequence] = {}
        self._free_rows = list(range(config.max_running - 1, -1, -1))

    @property
    def has_work(self) -> bool:
        return bool(self._by_id)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def sequences(self) -> list[Sequence]:
        return list(self._by_id.values())

    def add(self, seq: Sequence) -> None:
        assert seq.request_id not in self._by_id, seq
        assert seq.num_tokens + seq.num_remaining_tokens <= self._blocks.num_tokens_capacity, seq
        self._by_id[seq.request_id] = seq
        self._waiting.append(seq)

    def remove(self, request_id: int) -> Sequence | None:
        """Forget a sequence, finished or not, and free what it holds."""
        seq = self._by_id.pop(request_id, None)
        if seq is None:
            return None
        if seq.row == NO_ROW:
            self._waiting.remove(seq)
        else:
            self._running.remove(seq)
            self._release(seq)
        return seq

    def plan_step(self) -> StepPlan:
        """Choose the chunks of the next step; blocks for them are granted when this returns."""
        plan = StepPlan(budget=self._config.max_step_tokens)
        self._extend_running(plan)
        if not plan.preempted:  # admitting in a step that had to preempt would thrash
            self._admit_waiting(plan)
        return plan

    def _extend_running(self, plan: StepPlan) -> None:
        # A prompt must not take the budget of those who only want one token: decodes go first.
        pending = deque(sorted(self._running, key=lambda seq: not seq.is_decoding))
        while pending and plan.budget > 0:
            seq = pending.popleft()
            num_tokens = min(seq.num_uncomputed_tokens, plan.budget)
            while not self._blocks.can_grow(seq, num_tokens):
                victim = self._newest_unplanned(plan) or seq
                self._preempt(victim, plan)
                if victim is seq:
                    break
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
        self._running.remove(seq)
        self._release(seq)
        seq.num_computed_tokens = 0
        self._waiting.appendleft(seq)
        plan.preempted.append(seq)

    def _admit_waiting(self, plan: StepPlan) -> None:
        while self._waiting and plan.budget > 0 and self._free_rows:
            seq = self._waiting[0]
            promise = seq.num_tokens + min(
                seq.num_remaining_tokens, self._config.reserved_new_tokens
            )
            if not self._blocks.can_reserve(promise):
                return  # first come, first served: a smaller one behind must not overtake
            self._waiting.popleft()
            self._blocks.reserve(seq, promise)
            seq.row = self._free_rows.pop()
            self._running.append(seq)
            num_tokens = min(seq.num_uncomputed_tokens, plan.budget)
            plan.add(seq, num_tokens, self._blocks.grow(seq, num_tokens))
            plan.num_joined += 1

    def _release(self, seq: Sequence) -> None:
        self._blocks.free(seq)
        self._free_rows.append(seq.row)
        seq.row = NO_ROW

    def check_integrity(self) -> None:
        """Assert that queues, rows and blocks agree. For tests."""
        self._blocks.check_integrity(self._by_id.values())
        assert {seq.request_id for seq in (*self._waiting, *self._running)} == self._by_id.keys()
        assert len(self._waiting) + len(self._running) == len(self._by_id)
        rows = [seq.row for seq in self._running]
        assert sorted(rows + self._free_rows) == list(range(self._config.max_running))
        assert all(seq.row == NO_ROW and not seq.block_table for seq in self._waiting)
