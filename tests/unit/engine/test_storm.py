"""Thousands of steps with requests that come, leave, fail and end at random.

Rules 4, 5, 8 and 10 of spec/scheduling.md section 16. A chat's next turn begins with all of its
last, so that the cache of prefixes is as busy as the queue; `CountingRunner` compares every slot
that a step reads with what must be there.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.builders.engine import (
    VOCAB_SIZE,
    CountingRunner,
    expected_tokens,
    make_engine,
    request,
)
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.ipc.messages import NewRequest

NUM_BLOCKS = 30
MODES: dict[str, dict[str, Any]] = {
    "usual": {},
    "without_cache": {"prefix_caching": False},
    "without_chunking": {"prefill_chunking": False, "max_step_tokens": 60},
    "tiny_steps": {"max_step_tokens": 3, "max_running": 3},
    "preempting": {"reserved_new_tokens": 5},
    "preempting_without_chunking": {
        "reserved_new_tokens": 5,
        "prefill_chunking": False,
        "max_step_tokens": 12,
    },
}


class Storm:
    """What clients do to an engine, and what they are told."""

    def __init__(self, engine: Engine, runner: CountingRunner, seed: int) -> None:
        self.engine = engine
        self.runner = runner
        self.open: dict[int, NewRequest] = {}
        self.tokens: dict[int, list[int]] = {}
        self.ended: dict[str, int] = {"finished": 0, "failed": 0, "aborted": 0}
        self.num_preempted = 0
        self._random = random.Random(seed)
        self._histories: list[list[int]] = [[]]  # of chats, to be continued
        self._next_id = 0

    def arrive(self) -> None:
        draw = self._random
        prompt_ids = list(draw.choice(self._histories[-8:]))[: draw.randint(1, 40)]
        prompt_ids += draw.choices(range(VOCAB_SIZE), k=draw.randint(1, 9))
        new = request(
            self._next_id,
            prompt_ids=prompt_ids,
            max_new_tokens=draw.randint(1, 63 - len(prompt_ids)),
            scores_prompt=draw.random() < 0.1,
        )
        self._next_id += 1
        self.open[new.request_id] = new
        self.tokens[new.request_id] = []
        if draw.random() < 0.04:
            self.runner.raises_for.add(new.request_id)
        elif draw.random() < 0.04:
            self.runner.not_finite_for.add(new.request_id)
        self.engine.add(new)

    def rage(self, weather: random.Random, num_turns: int) -> None:
        """Have requests come and go between steps for so many turns, then let all end."""
        for _ in range(num_turns):
            if weather.random() < 0.35 and len(self.open) < 25:
                self.arrive()
            if weather.random() < 0.08:
                self.leave()
            if self.engine.has_work:
                self.step()
        while self.engine.has_work:
            self.step()

    def leave(self) -> None:
        if self.open:
            request_id = self._random.choice(list(self.open))
            del self.open[request_id]
            self.engine.abort(request_id)
            self.ended["aborted"] += 1

    def step(self) -> None:
        output = self.engine.step()
        self.engine.check_integrity()
        self.num_preempted += output.stats.num_preempted
        for seq in output.outputs:
            self.tokens[seq.request_id] += seq.token_ids
            if seq.finish_reason is not None:
                self._finish(self.open.pop(seq.request_id))
        for failure in output.failures:
            del self.open[failure.request_id]  # once, or this raises
            assert self._is_bad(failure.request_id)
            self.ended["failed"] += 1

    def _finish(self, done: NewRequest) -> None:
        tokens = self.tokens[done.request_id]
        assert not self._is_bad(done.request_id)
        assert tokens == expected_tokens(done.prompt_ids, done.max_new_tokens)
        self._histories.append(done.prompt_ids + tokens)
        self.ended["finished"] += 1

    def _is_bad(self, request_id: int) -> bool:
        return request_id in self.runner.raises_for | self.runner.not_finite_for


@pytest.mark.parametrize("mode", MODES)
def test_after_a_storm_everyone_was_answered_and_every_block_is_back(mode, caplog):
    caplog.set_level("CRITICAL")  # thousands of made failures
    engine, runner = make_engine(num_blocks=NUM_BLOCKS, **MODES[mode])
    storm = Storm(engine, runner, seed=31)

    storm.rage(random.Random(17), num_turns=4000)

    assert storm.open == {}
    assert min(storm.ended.values()) > 10, storm.ended
    assert (storm.num_preempted > 10) == mode.startswith("preempting")
    stats = engine.report().stats
    assert stats.num_blocks_used == stats.num_reserved_tokens == 0
    assert stats.num_running == stats.num_waiting == 0
    assert (engine.blocks.num_cached_blocks > 0) == (mode != "without_cache")
    engine.blocks.clear_cache()
    assert engine.blocks.num_free_blocks == NUM_BLOCKS


def test_a_client_that_leaves_between_two_chunks_or_from_the_queue_gives_back_all_at_once():
    engine, _ = make_engine(max_step_tokens=5, max_running=1)
    engine.add(request(0, num_tokens=30, max_new_tokens=9))
    engine.add(request(1, num_tokens=30, max_new_tokens=9))
    engine.step()

    engine.abort(1)
    engine.abort(0)

    stats = engine.report().stats
    assert stats.num_blocks_used == stats.num_reserved_tokens == stats.num_waiting == 0
    assert not engine.has_work
