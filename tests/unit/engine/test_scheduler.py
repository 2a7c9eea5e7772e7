from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import SteppedScheduler


def test_prompts_are_cut_to_the_step_budget_and_go_on_in_the_next_step():
    stepped = SteppedScheduler(max_step_tokens=5)
    seq = stepped.add(num_tokens=12)

    chunks = [stepped.run_step().chunks[0] for _ in range(3)]

    assert [(chunk.start, chunk.num_tokens) for chunk in chunks] == [(0, 5), (5, 5), (10, 2)]
    assert seq.num_output_tokens == 1


def test_a_long_prompt_gets_what_the_decodes_leave_of_the_budget():
    stepped = SteppedScheduler(max_step_tokens=5, num_blocks=40)
    decoding = stepped.add(num_tokens=2, max_new_tokens=20)
    stepped.run_step()
    long = stepped.add(num_tokens=11)

    plans = [stepped.run_step() for _ in range(3)]

    for plan in plans:
        assert plan.chunks[0].seq is decoding
        assert plan.chunks[0].num_tokens == 1
    assert [plan.chunks[1].num_tokens for plan in plans] == [4, 4, 3]
    assert long.num_output_tokens == 1


def test_admission_waits_until_the_whole_reservation_fits():
    stepped = SteppedScheduler(num_blocks=6, block_size=2)
    first = stepped.add(num_tokens=4, max_new_tokens=4)
    second = stepped.add(num_tokens=4, max_new_tokens=4)

    plan = stepped.run_step()

    assert plan.sequences == [first]
    assert stepped.scheduler.num_waiting == 1
    while first.num_remaining_tokens:
        stepped.run_step()
    assert stepped.run_step().sequences == [second]


def test_a_small_request_does_not_overtake_the_head_of_the_queue():
    stepped = SteppedScheduler(num_blocks=6, block_size=2)
    stepped.add(num_tokens=4, max_new_tokens=4)
    stepped.add(num_tokens=6, max_new_tokens=4)
    small = stepped.add(num_tokens=1, max_new_tokens=1)

    plan = stepped.run_step()

    assert small not in plan.sequences


def test_max_running_is_a_hard_limit():
    stepped = SteppedScheduler(max_running=2, num_blocks=40)
    for _ in range(5):
        stepped.add()

    plan = stepped.run_step()

    assert len(plan.sequences) == stepped.scheduler.num_running == 2


def test_newest_sequence_is_preempted_when_one_grows_past_its_promise():
    stepped = SteppedScheduler(num_blocks=4, block_size=2, reserved_new_tokens=1)
    old = stepped.add(num_tokens=3, max_new_tokens=5)
    new = stepped.add(num_tokens=3, max_new_tokens=5)
    stepped.run_step()  # both prefilled, all four blocks promised
    stepped.run_step()

    plan = stepped.run_step()

    assert plan.sequences == [old]
    assert plan.preempted == [new]
    assert new.num_computed_tokens == 0
    assert new.block_table == []


def test_a_preempted_sequence_is_the_first_to_come_back():
    stepped = SteppedScheduler(num_blocks=4, block_size=2, reserved_new_tokens=1)
    old = stepped.add(num_tokens=3, max_new_tokens=4)
    new = stepped.add(num_tokens=3, max_new_tokens=4)
    late = stepped.add(num_tokens=1, max_new_tokens=1)
    plans = [stepped.run_step() for _ in range(3)]
    assert plans[-1].preempted == [new]

    while old.num_remaining_tokens:
        assert stepped.run_step().sequences == [old]
    plan = stepped.run_step()

    assert plan.sequences == [new, late]
    assert plan.chunks[0].start == 0  # computed again from its ids


def test_removing_a_waiting_and_a_running_sequence_frees_everything():
    stepped = SteppedScheduler(max_running=1)
    running, waiting = stepped.add(), stepped.add()
    stepped.run_step()

    stepped.scheduler.remove(running.request_id)
    stepped.scheduler.remove(waiting.request_id)

    assert not stepped.scheduler.has_work
    assert stepped.blocks.num_used_blocks == 0
    assert stepped.scheduler.remove(running.request_id) is None


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 6)), max_size=12
    ),
    num_blocks=st.integers(10, 30),
    max_step_tokens=st.integers(1, 24),
    max_running=st.integers(1, 5),
    reserved_new_tokens=st.integers(1, 24),
    aborted=st.sets(st.integers(0, 11), max_size=4),
)
def test_every_request_ends_whatever_the_limits(
    requests, num_blocks, max_step_tokens, max_running, reserved_new_tokens, aborted
):
    stepped = SteppedScheduler(
        num_blocks=num_blocks,
        block_size=4,
        max_step_tokens=max_step_tokens,
        max_running=max_running,
        reserved_new_tokens=reserved_new_tokens,
    )
    added = []

    for num_tokens, max_new_tokens, steps_before_next in requests:
        added.append(stepped.add(num_tokens, max_new_tokens))
        for _ in range(steps_before_next):
            stepped.run_step()
    for request_id in aborted:
        stepped.scheduler.remove(request_id)
    for _ in range(20_000):
        if not stepped.scheduler.has_work:
            break
        stepped.run_step()

    assert not stepped.scheduler.has_work
    assert stepped.blocks.num_used_blocks == 0
    for seq in added:
        assert seq.request_id in aborted or seq.num_remaining_tokens == 0
