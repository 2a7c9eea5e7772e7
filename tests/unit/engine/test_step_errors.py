"""What fails when a step does: spec/scheduling.md section 7 and rules 8 and 10 of section 16."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import CountingRunner, expected_tokens, make_engine, request
from tgi_cli.runtime.engine.engine import NOT_FINITE, STEP_FAILED, Engine


def run_with_failures(engine: Engine) -> tuple[dict[int, list[int]], dict[int, str]]:
    """Step to the end; return the tokens of each request, and how those that failed did."""
    tokens: dict[int, list[int]] = {}
    failures: dict[int, str] = {}
    while engine.has_work:
        output = engine.step()
        engine.check_integrity()
        for seq in output.outputs:
            assert seq.request_id not in failures
            tokens.setdefault(seq.request_id, []).extend(seq.token_ids)
        for failure in output.failures:
            assert failure.request_id not in failures, "told twice"
            failures[failure.request_id] = failure.message
    return tokens, failures


@pytest.mark.parametrize("num_requests", [1, 2, 7])
def test_one_that_makes_every_step_raise_fails_alone(num_requests):
    engine, runner = make_engine(max_running=9, num_blocks=90, max_step_tokens=64)
    requests = [request(i, num_tokens=5, max_new_tokens=6) for i in range(num_requests)]
    bad = num_requests // 2
    runner.raises_for = {bad}
    for req in requests:
        engine.add(req)

    tokens, failures = run_with_failures(engine)

    assert failures == {bad: STEP_FAILED}
    for req in requests:
        if req.request_id != bad:
            assert tokens[req.request_id] == expected_tokens(req.prompt_ids, 6)


def test_one_that_begins_to_raise_half_way_fails_alone():
    engine, runner = make_engine()
    requests = [request(i, num_tokens=3, max_new_tokens=9) for i in range(5)]
    for req in requests:
        engine.add(req)
    for _ in range(3):
        engine.step()
    runner.raises_for = {0, 3}

    tokens, failures = run_with_failures(engine)

    assert failures == {0: STEP_FAILED, 3: STEP_FAILED}
    for index in (1, 2, 4):
        assert tokens[index] == expected_tokens(requests[index].prompt_ids, 9)[3:]


def test_a_step_that_is_too_large_for_the_memory_is_taken_in_parts():
    engine, runner = make_engine(max_step_tokens=64)
    requests = [request(i, num_tokens=5, max_new_tokens=4) for i in range(6)]
    runner.max_tokens = 11
    for req in requests:
        engine.add(req)

    tokens, failures = run_with_failures(engine)

    assert failures == {}
    for req in requests:
        assert tokens[req.request_id] == expected_tokens(req.prompt_ids, 4)


def test_a_failure_that_does_not_come_back_costs_nobody_anything():
    engine, runner = make_engine()
    requests = [request(i, max_new_tokens=5) for i in range(2)]
    for req in requests:
        engine.add(req)
    engine.step()
    runner.fail_next = True

    tokens, failures = run_with_failures(engine)

    assert failures == {}
    assert tokens[1] == expected_tokens(requests[1].prompt_ids, 5)[1:]


def test_if_everything_raises_everyone_fails_after_a_bounded_number_of_tries():
    engine, runner = make_engine(max_running=6)
    for index in range(6):
        engine.add(request(index, num_tokens=2))
    engine.add(request(9, num_tokens=2, max_new_tokens=2))
    runner.raises_for = set(range(6))

    output = engine.step()

    assert [failure.request_id for failure in output.failures] == list(range(6))
    assert output.outputs == []
    assert output.stats.batch_size == output.stats.num_blocks_used == 0
    assert len(runner.plans) == 2 * 6 - 1
    tokens, failures = run_with_failures(engine)
    assert (list(tokens), failures) == ([9], {})


def test_scores_that_are_no_numbers_fail_their_request_and_spoil_no_block():
    engine, runner = make_engine(num_blocks=16, max_running=2)
    requests = [request(i, num_tokens=13, max_new_tokens=7) for i in range(6)]
    runner.not_finite_for = {1, 2}
    for req in requests:
        engine.add(req)

    tokens, failures = run_with_failures(engine)

    assert failures == {1: NOT_FINITE, 2: NOT_FINITE}
    for index in (0, 3, 4, 5):
        assert tokens[index] == expected_tokens(requests[index].prompt_ids, 7)


def test_a_prefix_that_gave_no_numbers_is_computed_again():
    engine, runner = make_engine()
    first = request(0, num_tokens=13, max_new_tokens=2)
    engine.add(first)
    run_with_failures(engine)
    spoil_cache(runner)

    results = []
    for request_id in (1, 2):
        engine.add(request(request_id, prompt_ids=first.prompt_ids, max_new_tokens=2))
        results.append(run_with_failures(engine))

    assert results[0] == ({}, {1: NOT_FINITE})
    assert results[1] == ({2: expected_tokens(first.prompt_ids, 2)}, {})


def spoil_cache(runner: CountingRunner) -> None:
    for slot in runner.slots:
        runner.slots[slot] = CountingRunner.NOT_A_NUMBER


def test_a_prompt_that_left_half_way_leaves_no_unchecked_block():
    engine, runner = make_engine(max_step_tokens=4, num_blocks=16)
    runner.not_finite_for = {0}
    engine.add(request(0, num_tokens=30, max_new_tokens=4))
    for _ in range(3):
        engine.step()  # two chunks to go before anybody looks at a score
    engine.abort(0)
    follower = request(1, prompt_ids=request(0, num_tokens=30).prompt_ids, max_new_tokens=4)
    engine.add(follower)

    tokens, failures = run_with_failures(engine)

    assert failures == {}
    assert tokens[1] == expected_tokens(follower.prompt_ids, 4)


def test_failures_outside_a_runs_chunks_fail_those_that_ran_and_spare_the_waiting_ones():
    engine, _ = make_engine(max_running=1)
    for index in range(2):
        engine.add(request(index, max_new_tokens=2))
    engine.add(request(5, prompt_ids=[98], max_new_tokens=2))  # refused, and told with this step
    engine.step()
    engine.add(request(6, prompt_ids=[98], max_new_tokens=2))

    output = engine.fail_running()

    assert [failure.request_id for failure in output.failures] == [6, 0]
    engine.check_integrity()
    assert list(run_with_failures(engine)[0]) == [1]


@settings(max_examples=60, deadline=None)
@given(
    num_requests=st.integers(1, 8),
    raises_for=st.sets(st.integers(0, 7), max_size=4),
    not_finite_for=st.sets(st.integers(0, 7), max_size=3),
    max_step_tokens=st.integers(3, 30),
    prefill_chunking=st.booleans(),
)
def test_no_error_of_one_request_reaches_another(
    num_requests, raises_for, not_finite_for, max_step_tokens, prefill_chunking
):
    engine, runner = make_engine(
        max_step_tokens=max_step_tokens, num_blocks=20, prefill_chunking=prefill_chunking
    )
    runner.raises_for, runner.not_finite_for = raises_for, not_finite_for
    # Their prompts begin alike, so that they also meet in the cache.
    requests = [
        request(i, prompt_ids=[9, 8, 7, 6, 5, i, i], max_new_tokens=3 + i, ignore_eos=True)
        for i in range(num_requests)
    ]
    for req in requests:
        engine.add(req)

    tokens, failures = run_with_failures(engine)

    bad = (raises_for | not_finite_for) & set(range(num_requests))
    assert failures.keys() == bad
    for req in requests:
        if req.request_id not in bad:
            assert tokens[req.request_id] == expected_tokens(req.prompt_ids, req.max_new_tokens)
