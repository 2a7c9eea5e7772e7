"""The engine with the prefix cache: who shares what, and what its statistics say of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import (
    CountingRunner,
    SteppedScheduler,
    expected_tokens,
    make_engine,
    request,
    run_to_end,
)
from tgi_cli.runtime.engine.engine import Engine


def computed(runner: CountingRunner, request_id: int) -> list[tuple[int, int]]:
    """Return start and number of tokens of every chunk that was computed of a request."""
    chunks = [chunk for plan in runner.plans for chunk in plan]
    return [(start, num_tokens) for other, start, num_tokens in chunks if other == request_id]


def say(engine: Engine, request_id: int, prompt_ids: list[int], num_tokens: int = 4) -> list[int]:
    engine.add(request(request_id, prompt_ids=prompt_ids, max_new_tokens=num_tokens))
    return run_to_end(engine)[request_id]


def test_the_next_turn_of_a_chat_computes_only_what_is_new():
    engine, runner = make_engine()
    prompt_ids = [3, 1, 4, 1, 5, 9, 2]
    answer = say(engine, 0, prompt_ids, 6)

    again = say(engine, 1, [*prompt_ids, *answer, 8, 8], 3)

    # Twelve of the thirteen have keys and values, and they are three whole blocks of four.
    assert computed(runner, 1)[0] == (12, 3)
    assert again == expected_tokens([*prompt_ids, *answer, 8, 8], 3)


def test_of_a_prompt_that_is_cached_as_a_whole_the_last_token_is_computed():
    engine, runner = make_engine()
    prompt_ids = list(range(8))
    say(engine, 0, prompt_ids)

    assert say(engine, 1, prompt_ids) == expected_tokens(prompt_ids, 4)

    assert computed(runner, 1)[0] == (4, 4)


def test_two_equal_prompts_at_once_are_both_computed_and_kept_once():
    engine, runner = make_engine()
    prompt_ids = list(range(9))
    for request_id in range(2):
        engine.add(request(request_id, prompt_ids=prompt_ids, max_new_tokens=2))

    run_to_end(engine)

    assert computed(runner, 0) == [(0, 9), (9, 1)]
    assert computed(runner, 1)[0][0] == 0
    assert engine.blocks.num_cached_blocks == 2
    assert engine.report().stats.num_blocks_used == 0


def test_hits_and_queries_count_the_prompts_of_those_who_were_admitted():
    engine, _ = make_engine()
    say(engine, 0, list(range(9)))
    engine.add(request(1, prompt_ids=[*range(8), 50, 51, 52], max_new_tokens=2))
    engine.add(request(2, prompt_ids=[60, 61], max_new_tokens=2))
    engine.add(request(3, prompt_ids=[60], max_new_tokens=2, scores_prompt=True))

    first, second = engine.step().stats, engine.step().stats

    assert (first.num_prefix_hit_tokens, first.num_prefix_query_tokens) == (8, 13)
    assert (second.num_prefix_hit_tokens, second.num_prefix_query_tokens) == (0, 0)


def test_scores_of_the_prompt_are_computed_from_its_first_token_on():
    engine, runner = make_engine()
    prompt_ids = list(range(9))
    say(engine, 0, prompt_ids)

    engine.add(request(1, prompt_ids=prompt_ids, max_new_tokens=2, scores_prompt=True))
    run_to_end(engine)

    assert computed(runner, 1)[0] == (0, 9)


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_prefix_caching_can_be_switched_off(prefix_caching):
    engine, runner = make_engine(prefix_caching=prefix_caching)
    say(engine, 0, list(range(9)))

    engine.add(request(1, prompt_ids=list(range(9)), max_new_tokens=2))
    stats = engine.step().stats

    assert computed(runner, 1)[0][0] == (8 if prefix_caching else 0)
    assert (stats.num_prefix_query_tokens > 0) == prefix_caching
    assert (engine.blocks.num_cached_blocks > 0) == prefix_caching


def test_the_warm_up_leaves_nothing_in_the_cache():
    engine, _ = make_engine()

    engine.warm_up()

    assert engine.blocks.num_free_blocks == engine.blocks.num_blocks


def test_a_preempted_sequence_finds_its_own_blocks_again():
    stepped = SteppedScheduler(
        num_blocks=8, block_size=2, reserved_new_tokens=1, prefix_caching=True
    )
    old = stepped.add(num_tokens=7, max_new_tokens=3)
    new = stepped.add(num_tokens=7, max_new_tokens=3)
    stepped.run_step()
    stepped.run_step()
    assert stepped.run_step().preempted == [new]

    while old.num_remaining_tokens:
        stepped.run_step()
    plan = stepped.run_step()

    assert plan.sequences == [new]
    assert plan.chunks[0].start > 0
    assert plan.num_prefix_query_tokens == 0  # it was asked for when it was new


@settings(max_examples=80, deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(1, 9)), max_size=14
    ),
    num_blocks=st.integers(16, 40),
    max_step_tokens=st.integers(1, 40),
    steps_between=st.integers(0, 9),
    prefill_chunking=st.booleans(),
)
def test_tokens_do_not_depend_on_what_is_cached_or_evicted(
    turns, num_blocks, max_step_tokens, steps_between, prefill_chunking
):
    engine, _ = make_engine(
        num_blocks=num_blocks, max_step_tokens=max_step_tokens, prefill_chunking=prefill_chunking
    )
    requests = [
        # Four chats, each turn of which goes on from somewhere within the same text.
        request(i, prompt_ids=[*range(chat, chat + num_shared), 90, i], max_new_tokens=num_new)
        for i, (chat, num_shared, num_new) in enumerate(turns)
    ]
    tokens: dict[int, list[int]] = {}

    for req in requests:
        engine.add(req)
        for _ in range(steps_between):
            for output in engine.step().outputs if engine.has_work else []:
                tokens.setdefault(output.request_id, []).extend(output.token_ids)
            engine.check_integrity()
    for request_id, rest in run_to_end(engine).items():
        tokens.setdefault(request_id, []).extend(rest)

    for req in requests:
        assert tokens[req.request_id] == expected_tokens(req.prompt_ids, req.max_new_tokens)
