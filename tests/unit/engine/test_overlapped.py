"""The loop that launches a step while the one before it runs says what the plain loop says."""

from __future__ import annotations

import random
import weakref
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import expected_tokens, make_engine, request, run_to_end
from tests.builders.guided import finish, finish_counting, guided_engine, guided_request
from tests.builders.overlapped import OnDevice, make_overlapped, make_overlapped_guided
from tests.unit.engine.test_storm import MODES, NUM_BLOCKS, Storm
from tgi_cli.errors import EngineDiedError
from tgi_cli.runtime.engine import engine as engine_module
from tgi_cli.runtime.engine.engine import NOT_FINITE, STEP_FAILED, Engine
from tgi_cli.runtime.ipc.messages import NewRequest, SequenceOutput
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.types import Grammar

SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "temperature": 5.0, "seed": 7},
    {"repetition_penalty": 1.9, "presence_penalty": 1.5},
    {"do_sample": True, "temperature": 9.0, "frequency_penalty": 1.0, "min_tokens": 4, "seed": 3},
    {"watermark": True, "do_sample": True, "temperature": 3.0, "seed": 1},
]


def play(engine: Engine, schedule: list[list[NewRequest | int]]) -> dict[int, list[SequenceOutput]]:
    """Step through arrivals and aborts (ids), then to the end; return what each was told."""
    told: dict[int, list[SequenceOutput]] = {}
    events = list(schedule)
    while events or engine.has_work:
        for event in events.pop(0) if events else []:
            if isinstance(event, NewRequest):
                engine.add(event)
            else:
                engine.abort(event)
        if engine.has_work:
            output = engine.step()
            engine.check_integrity()
            assert not output.failures
            for seq in output.outputs:
                told.setdefault(seq.request_id, []).append(seq)
    return told


@st.composite
def schedules(draw: st.DrawFn) -> list[list[NewRequest | int]]:
    schedule: list[list[NewRequest | int]] = []
    num_requests = draw(st.integers(1, 9))
    for request_id in range(num_requests):
        new = request(
            request_id,
            num_tokens=draw(st.integers(1, 30)),
            max_new_tokens=draw(st.integers(1, 20)),
            scores_prompt=draw(st.integers(0, 6)) == 0,
            **draw(st.sampled_from(SAMPLINGS)),
        )
        schedule += [[] for _ in range(draw(st.integers(0, 3)))]
        schedule.append([new])
    for request_id in draw(st.sets(st.integers(0, num_requests - 1), max_size=3)):
        arrived = next(i for i, step in enumerate(schedule) if _arrives(step, request_id))
        schedule += [[] for _ in range(25)]
        schedule[arrived + draw(st.integers(1, 20))].append(request_id)
    return schedule


def _arrives(step: list[NewRequest | int], request_id: int) -> bool:
    return any(isinstance(event, NewRequest) and event.request_id == request_id for event in step)


@settings(max_examples=100, deadline=None)
@given(
    schedule=schedules(),
    max_step_tokens=st.integers(2, 40),
    num_blocks=st.integers(13, 60),
    eos_token_ids=st.sets(st.integers(0, 96), max_size=20),
    reserved_new_tokens=st.sampled_from([2, 1024]),
    prefill_chunking=st.booleans(),
    prefix_caching=st.booleans(),
)
def test_everyone_is_told_what_the_plain_loop_tells(schedule, **config):
    config["eos_token_ids"] = tuple(config["eos_token_ids"])
    plain, _ = make_engine(**config)
    overlapped, runner, _ = make_overlapped(**config)

    expected = play(plain, schedule)
    told = play(overlapped, schedule)

    aborted = {event for step in schedule for event in step if isinstance(event, int)}
    for request_id, outputs in expected.items():
        if request_id not in aborted:
            assert told[request_id] == outputs
        common = min(len(outputs), len(told.get(request_id, [])))
        assert outputs[:common] == told.get(request_id, [])[:common]
    assert not runner.running, "a step was never waited for"
    stats = overlapped.report().stats
    assert stats.num_blocks_used == stats.num_reserved_tokens == stats.num_running == 0


@pytest.mark.parametrize("mode", MODES)
def test_after_a_storm_everyone_was_answered_and_every_block_is_back(mode, caplog):
    caplog.set_level("CRITICAL")  # thousands of made failures
    engine, runner, _ = make_overlapped(num_blocks=NUM_BLOCKS, **MODES[mode])
    storm = Storm(engine, runner, seed=5)

    storm.rage(random.Random(23), num_turns=2000)

    assert storm.open == {}
    assert min(storm.ended.values()) > 5, storm.ended
    assert (storm.num_preempted > 5) == mode.startswith("preempting")
    stats = engine.report().stats
    assert stats.num_blocks_used == stats.num_reserved_tokens == 0
    assert stats.num_running == stats.num_waiting == 0
    engine.blocks.clear_cache()
    assert engine.blocks.num_free_blocks == NUM_BLOCKS


def order(runner: OnDevice) -> list[str]:
    """Launches of samplers and fetches."""
    return [f"{what} {step}" for what, step in runner.log if what != "run"]


def test_a_step_is_launched_before_the_one_before_it_is_waited_for():
    engine, runner, _ = make_overlapped()
    engine.add(request(0, max_new_tokens=4))
    engine.add(request(1, max_new_tokens=3))

    tokens = run_to_end(engine)

    assert tokens[0] == expected_tokens(request(0).prompt_ids, 4)
    assert order(runner) == [
        *("launch 1", "launch 2", "fetch 1", "launch 3", "fetch 2", "launch 4", "fetch 3"),
        "fetch 4",
    ]


def test_one_that_joins_or_is_in_the_midst_of_its_prompt_keeps_no_step_waiting():
    engine, runner, _ = make_overlapped(max_step_tokens=4)
    engine.add(request(0, num_tokens=2, max_new_tokens=9))
    engine.step()
    engine.add(request(1, num_tokens=11, max_new_tokens=2))

    run_to_end(engine)

    fetched = [order(runner).index(f"fetch {step}") for step in range(1, 8)]
    launched = [order(runner).index(f"launch {step}") for step in range(2, 9)]
    assert all(map(int.__lt__, launched, fetched))


def test_a_row_that_the_host_samples_is_waited_for_and_others_are_once_it_is_gone():
    engine, runner, _ = make_overlapped()
    engine.add(request(0, max_new_tokens=2, watermark=True))
    engine.add(request(1, max_new_tokens=4))

    run_to_end(engine)

    assert order(runner) == [
        *("launch 1", "fetch 1", "launch 2", "fetch 2"),
        *("launch 3", "launch 4", "fetch 3", "fetch 4"),
    ]


def test_guided_requests_and_others_are_told_what_the_plain_loop_tells():
    grammars = [
        Grammar("regex", r"[a-c]{2,5}-\d+x"),
        None,
        Grammar("choice", '["yes", "no"]'),
        None,
    ]
    requests = [
        guided_request(grammar, i, max_new_tokens=30, do_sample=True, seed=i)
        for i, grammar in enumerate(grammars)
    ]

    plain, (overlapped, runner) = guided_engine(), make_overlapped_guided()
    results = []
    for engine in (plain, overlapped):
        for new in requests:
            engine.add(new)
        results.append(finish(engine))

    assert results[0] == results[1]
    kinds = [kind for kind, _ in runner.log]
    first = runner.log[0][1]
    assert order(runner)[:4] == [
        f"{what} {first + i}" for i in (0, 1) for what in ("launch", "fetch")
    ]
    assert kinds[:6] == ["run", "launch", "run", "fetch", "launch", "run"]
    assert "run launch fetch run launch fetch" in " ".join(kinds)  # when only others are left


def test_guided_requests_that_preempt_one_another_are_told_the_same():
    requests = [
        guided_request(Grammar("regex", "[a-f]{45,50}"), i, repetition_penalty=1.2)
        if i % 2
        else guided_request(None, i, do_sample=True, seed=i, max_new_tokens=61, ignore_eos=True)
        for i in range(5)
    ]
    plain = guided_engine(max_total_tokens=1200)
    overlapped, _ = make_overlapped_guided(
        num_blocks=30, max_total_tokens=110, reserved_new_tokens=1
    )

    results = []
    for engine in (plain, overlapped):
        for new in requests:
            engine.add(msgspec.structs.replace(new, max_new_tokens=min(new.max_new_tokens, 100)))
        results.append(finish_counting(engine))

    assert results[0][0] == results[1][0]
    assert results[1][1] > 0


def test_one_that_stops_keeps_its_blocks_until_the_step_that_was_launched_is_over():
    prompt = request(0).prompt_ids
    engine, _, _ = make_overlapped(eos_token_ids=(expected_tokens(prompt, 1)[0],))
    engine.add(request(0, max_new_tokens=9))

    first = engine.step()
    second = engine.step()

    assert [output.finish_reason for output in first.outputs] == ["eos_token"]
    assert first.stats.num_blocks_used == 2
    assert second.outputs == []
    assert second.stats.num_blocks_used == second.stats.num_running == 0
    assert not engine.has_work
    assert engine.blocks.take_dirty() == []


def test_one_that_is_aborted_says_no_more_and_frees_its_blocks_a_step_later():
    engine, _, _ = make_overlapped()
    engine.add(request(0, max_new_tokens=50))
    engine.add(request(1, max_new_tokens=3))
    engine.step()

    engine.abort(0)
    engine.abort(0)
    output = engine.step()

    assert [seq.request_id for seq in output.outputs] == [1]
    assert output.stats.num_running == 1
    assert run_to_end(engine)[1] == expected_tokens(request(1).prompt_ids, 3)[2:]


def test_nobody_is_preempted_while_a_step_runs():
    engine, runner, _ = make_overlapped(num_blocks=13, reserved_new_tokens=1, max_running=3)
    requests = [request(i, num_tokens=9, max_new_tokens=30) for i in range(3)]
    for req in requests:
        engine.add(req)

    tokens: dict[int, list[int]] = {}
    preempted_at = []
    while engine.has_work:
        was_idle = not runner.running
        output = engine.step()
        if output.stats.num_preempted:
            preempted_at.append(was_idle)
        for seq in output.outputs:
            tokens.setdefault(seq.request_id, []).extend(seq.token_ids)

    assert preempted_at
    assert all(preempted_at)
    for req in requests:
        assert tokens[req.request_id] == expected_tokens(req.prompt_ids, 30)


def test_a_launch_that_fails_is_tried_again_when_the_step_before_it_is_over(caplog):
    engine, runner, sampler = make_overlapped()
    requests = [request(i, max_new_tokens=6) for i in range(3)]
    for req in requests:
        engine.add(req)
    first = {seq.request_id: seq.token_ids for seq in engine.step().outputs}
    error = MemoryError("made to fail by a test")
    sampler.fails = [error]

    rest = run_to_end(engine)

    assert runner.recovered == [error]
    for req in requests:
        told = first[req.request_id] + rest[req.request_id]
        assert told == expected_tokens(req.prompt_ids, 6)


def test_a_launch_that_is_too_large_for_the_memory_is_taken_in_parts(caplog):
    engine, runner, _ = make_overlapped(max_step_tokens=64)
    requests = [request(i, num_tokens=5, max_new_tokens=4) for i in range(6)]
    runner.max_tokens = 11
    for req in requests:
        engine.add(req)

    tokens = run_to_end(engine)

    for req in requests:
        assert tokens[req.request_id] == expected_tokens(req.prompt_ids, 4)


def test_one_that_cannot_run_alone_is_told_and_no_other_is_lost(caplog):
    engine, runner, _ = make_overlapped()
    for index in range(4):
        engine.add(request(index, max_new_tokens=5))
    first = engine.step()
    runner.raises_for = {2}

    failures, tokens = list(first.failures), {s.request_id: s.token_ids for s in first.outputs}
    while engine.has_work:
        output = engine.step()
        engine.check_integrity()
        failures += output.failures
        for seq in output.outputs:
            tokens[seq.request_id] = tokens.get(seq.request_id, []) + seq.token_ids

    assert [(failure.request_id, failure.message) for failure in failures] == [(2, STEP_FAILED)]
    for index in (0, 1, 3):
        assert tokens[index] == expected_tokens(request(index).prompt_ids, 5)


def test_what_a_sequence_without_numbers_leaves_is_zeroed_before_anybody_joins(caplog):
    engine, runner, _ = make_overlapped(num_blocks=13, max_running=2)
    runner.not_finite_for = {0}
    requests = [request(i, num_tokens=9, max_new_tokens=7) for i in range(4)]
    for req in requests:
        engine.add(req)

    failures, tokens = [], {i: [] for i in range(4)}
    while engine.has_work:
        output = engine.step()
        failures += output.failures
        for seq in output.outputs:
            tokens[seq.request_id] = tokens[seq.request_id] + seq.token_ids

    assert [(failure.request_id, failure.message) for failure in failures] == [(0, NOT_FINITE)]
    assert runner.cleared
    for req in requests[1:]:
        assert tokens[req.request_id] == expected_tokens(req.prompt_ids, 7)


def test_after_a_failure_the_next_step_is_planned_once_all_is_known(caplog):
    engine, runner, _ = make_overlapped()
    runner.not_finite_for = {0}
    engine.add(request(0, max_new_tokens=5))
    engine.add(request(1, max_new_tokens=4))

    while engine.has_work:
        engine.step()

    assert order(runner)[:6] == [
        *("launch 1", "launch 2", "fetch 1", "fetch 2", "launch 3", "launch 4"),
    ]


def test_a_step_whose_end_is_an_error_fails_those_that_ran_and_spares_the_waiting_ones():
    engine, runner, _ = make_overlapped(max_running=2)
    for index in range(3):
        engine.add(request(index, max_new_tokens=9))
    engine.step()
    runner.fails_fetch = [RuntimeError("made to fail by a test")]

    with pytest.raises(RuntimeError, match="made to fail"):
        engine.step()
    output = engine.fail_running()

    assert [failure.request_id for failure in output.failures] == [0, 1]
    assert len(runner.recovered) == 1
    engine.check_integrity()
    assert run_to_end(engine) == {2: expected_tokens(request(2).prompt_ids, 9)}


@pytest.mark.parametrize("max_total_tokens", [4, 64])
def test_a_warm_up_scores_a_prompt_too_and_leaves_nothing(max_total_tokens, monkeypatch):
    scored = []
    monkeypatch.setattr(engine_module, "score_prompt", lambda seq, rows: scored.append(len(rows)))
    engine, runner, _ = make_overlapped(max_total_tokens=max_total_tokens, max_step_tokens=32)

    engine.warm_up()

    assert scored == ([] if max_total_tokens == 4 else [18])
    assert not engine.has_work
    assert not runner.running
    assert engine.blocks.num_free_blocks == 40


def test_scores_are_gone_once_their_tokens_are_chosen():
    engine, runner, _ = make_overlapped()
    run, logits = runner.run, []

    def remembered(*args: Any) -> Scores:
        scores = run(*args)
        logits.append(weakref.ref(scores.logits))
        return scores

    runner.run = remembered  # type: ignore[method-assign]
    for index in range(3):
        engine.add(request(index, max_new_tokens=9))

    engine.step()

    assert [each() for each in logits] == [None, None]


@pytest.mark.parametrize("num_tries", [1, 2])
def test_blocks_that_cannot_be_zeroed_at_once_are_zeroed_before_anybody_has_them(num_tries, caplog):
    engine, runner, _ = make_overlapped(num_blocks=13, max_running=2)
    clear, errors = runner.clear_blocks, [MemoryError() for _ in range(num_tries)]

    def clear_later(block_ids: list[int]) -> None:
        if errors:
            raise errors.pop()
        clear(block_ids)

    runner.clear_blocks = clear_later  # type: ignore[method-assign]
    runner.recover = lambda exc: isinstance(exc, MemoryError)  # type: ignore[method-assign]
    runner.not_finite_for = {0}
    requests = [request(i, num_tokens=9, max_new_tokens=7) for i in range(5)]
    for req in requests:
        engine.add(req)

    failures, tokens = set(), {}
    while engine.has_work:
        try:
            output = engine.step()
        except MemoryError:
            output = engine.fail_running()
        engine.check_integrity()
        failures |= {failure.request_id for failure in output.failures}
        for seq in output.outputs:
            tokens[seq.request_id] = tokens.get(seq.request_id, []) + seq.token_ids

    # Only if both tries fail, those that ran are lost, and who was to join.
    assert failures == ({0} if num_tries == 1 else {0, 1, 2})
    assert runner.cleared
    for req in requests:
        if req.request_id not in failures:
            assert tokens[req.request_id] == expected_tokens(req.prompt_ids, 7)


def test_a_device_that_is_lost_ends_the_engine():
    engine, runner, sampler = make_overlapped()
    engine.add(request(0))

    def recover(exc: Exception) -> bool:
        raise EngineDiedError("the device is lost") from exc

    runner.recover = recover  # type: ignore[method-assign]
    sampler.fails = [RuntimeError("an illegal memory access")]

    with pytest.raises(EngineDiedError):
        engine.step()


def test_after_a_step_that_raised_nothing_of_it_is_left():
    engine, runner, _ = make_overlapped(max_running=2)
    for index in range(3):
        engine.add(request(index, max_new_tokens=9))
    engine.step()
    engine.abort(0)

    output = engine.fail_running()
    assert not runner.running

    assert [failure.request_id for failure in output.failures] == [1]
    engine.check_integrity()
    assert run_to_end(engine) == {2: expected_tokens(request(2).prompt_ids, 9)}
