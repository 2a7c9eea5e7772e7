"""When newcomers may interrupt the running requests: spec/scheduling.md sections 3 and 16.7.

The steps are told by what the runner was asked to compute, which a client sees as the times at
which its tokens come.
"""

from __future__ import annotations

import pytest

from tests.builders.engine import expected_tokens, make_engine, request, run_to_end
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.types import JoinReason


def start_running(engine: Engine, count: int, *, max_new_tokens: int = 40) -> None:
    for index in range(count):
        engine.add(request(index, num_tokens=3, max_new_tokens=max_new_tokens, ignore_eos=True))
    engine.step()


def decodes_until_joined(engine: Engine, max_steps: int = 30) -> tuple[int, JoinReason | None]:
    """Step until somebody joins; return the steps before that and the reason."""
    for num_steps in range(max_steps):
        stats = engine.step().stats
        engine.check_integrity()
        if stats.num_joined:
            return num_steps, stats.join_reason
    raise AssertionError("nobody joined")


def test_without_chunking_prompts_are_computed_whole_in_a_step_of_newcomers_alone():
    engine, runner = make_engine(prefill_chunking=False, max_step_tokens=20)
    start_running(engine, 2)
    engine.add(request(7, num_tokens=12, max_new_tokens=4))
    engine.add(request(8, num_tokens=11, max_new_tokens=4))  # beyond the budget of one step

    for _ in range(4):
        engine.step()

    assert runner.plans[1:] == [
        [(7, 0, 12)],
        [(0, 3, 1), (1, 3, 1), (7, 12, 1)],
        [(8, 0, 11)],
        [(0, 4, 1), (1, 4, 1), (7, 13, 1), (8, 11, 1)],
    ]


def test_with_chunking_newcomers_share_the_step_and_neither_option_matters():
    engine, runner = make_engine(waiting_served_ratio=99.0, max_waiting_tokens=99)
    start_running(engine, 2)
    engine.add(request(7, num_tokens=5, max_new_tokens=4))

    stats = engine.step().stats

    assert runner.plans[-1] == [(0, 3, 1), (1, 3, 1), (7, 0, 5)]
    assert stats.join_reason is JoinReason.CHUNKING


@pytest.mark.parametrize(
    ("num_running", "ratio", "num_needed"), [(3, 0.3, 1), (4, 0.3, 1), (4, 0.5, 2), (5, 0.79, 3)]
)
def test_as_many_must_wait_as_the_ratio_of_the_running_ones_says(num_running, ratio, num_needed):
    engine, _ = make_engine(
        prefill_chunking=False, waiting_served_ratio=ratio, max_running=9, num_blocks=120
    )
    start_running(engine, num_running)
    engine.step()
    for index in range(num_needed - 1):
        engine.add(request(50 + index, num_tokens=2, max_new_tokens=2))
        assert engine.step().stats.num_joined == 0
    engine.add(request(99, num_tokens=2, max_new_tokens=2))

    stats = engine.step().stats

    assert stats.num_joined == num_needed
    assert stats.join_reason is JoinReason.BACKPRESSURE


@pytest.mark.parametrize("max_waiting_tokens", [1, 2, 7])
def test_after_so_many_decodes_a_single_one_may_join(max_waiting_tokens):
    engine, _ = make_engine(
        prefill_chunking=False, waiting_served_ratio=3.0, max_waiting_tokens=max_waiting_tokens
    )
    start_running(engine, 3)
    engine.add(request(9, num_tokens=2, max_new_tokens=2))

    num_decodes, reason = decodes_until_joined(engine)

    assert num_decodes == max_waiting_tokens - 1  # the step that admitted the first ones counts
    assert reason is JoinReason.WAIT_EXCEEDED


def test_the_count_begins_again_when_somebody_joins():
    engine, _ = make_engine(
        prefill_chunking=False, waiting_served_ratio=3.0, max_waiting_tokens=5, num_blocks=99
    )
    start_running(engine, 2)
    for request_id in (8, 9):
        engine.add(request(request_id, num_tokens=12, max_new_tokens=30))

    joins = [decodes_until_joined(engine), decodes_until_joined(engine)]

    assert joins == [(4, JoinReason.WAIT_EXCEEDED)] * 2


def test_whoever_was_interrupted_gets_a_token_before_it_happens_again():
    engine, runner = make_engine(prefill_chunking=False, max_waiting_tokens=1)
    start_running(engine, 1)
    for request_id in range(5, 9):
        engine.add(request(request_id, num_tokens=10, max_new_tokens=9))

    for _ in range(6):
        engine.step()

    assert [len(plan) for plan in runner.plans[1:]] == [1, 2, 1, 3, 1, 4]


def test_the_first_ones_after_an_empty_engine_join_nobody():
    engine, _ = make_engine(prefill_chunking=False, waiting_served_ratio=9.0, max_waiting_tokens=9)
    engine.add(request(0, max_new_tokens=1))
    run_to_end(engine)
    engine.add(request(1))

    stats = engine.step().stats

    assert (stats.num_joined, stats.join_reason) == (1, None)


@pytest.mark.parametrize("prefill_chunking", [True, False])
def test_the_batch_size_is_a_hard_limit(prefill_chunking):
    engine, runner = make_engine(
        prefill_chunking=prefill_chunking, max_running=3, max_waiting_tokens=1, num_blocks=99
    )
    for index in range(11):
        engine.add(request(index, num_tokens=2, max_new_tokens=1 + index % 4))

    num_running = []
    while engine.has_work:
        num_running.append(engine.step().stats.num_running)

    assert max(num_running) <= 3
    assert max(len(plan) for plan in runner.plans) == 3


def test_without_chunking_a_preempted_request_longer_than_the_budget_goes_on_in_parts():
    engine, runner = make_engine(
        prefill_chunking=False, max_step_tokens=8, num_blocks=16, prefix_caching=False
    )
    long = request(0, prompt_ids=[1, 2], output_ids=expected_tokens([1, 2], 9), max_new_tokens=20)
    engine.add(long)

    tokens = run_to_end(engine)[0]

    assert runner.plans[:2] == [[(0, 0, 8)], [(0, 8, 3)]]
    assert long.output_ids + tokens == expected_tokens([1, 2], 20)
