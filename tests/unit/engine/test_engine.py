from __future__ import annotations

import functools
import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import expected_tokens, make_engine, request, run_to_end
from tgi_cli.runtime.types import FinishReason


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=9),
    max_step_tokens=st.integers(1, 40),
    num_blocks=st.integers(13, 60),
)
def test_tokens_do_not_depend_on_batch_chunks_or_preemption(sizes, max_step_tokens, num_blocks):
    engine, _ = make_engine(max_step_tokens=max_step_tokens, num_blocks=num_blocks)
    requests = [request(i, n, m, ignore_eos=True) for i, (n, m) in enumerate(sizes)]

    for req in requests:
        engine.add(req)
    tokens = run_to_end(engine)

    for req in requests:
        assert tokens[req.request_id] == expected_tokens(req.prompt_ids, req.max_new_tokens)


def test_a_resumed_request_goes_on_where_it_was():
    engine, _ = make_engine()
    whole = request(0, num_tokens=6, max_new_tokens=9)
    engine.add(whole)
    tokens = run_to_end(engine)[0]

    engine.add(request(1, prompt_ids=whole.prompt_ids, output_ids=tokens[:4], max_new_tokens=9))
    rest = run_to_end(engine)[1]

    assert rest == tokens[4:]


@pytest.mark.parametrize("num_had", [1, 4, 7])
def test_a_resumed_request_goes_on_with_every_step_that_looks_back(num_had):
    engine, _ = make_engine(eos_token_ids=(2, 3))
    params = {
        "do_sample": True,
        "temperature": 4.0,
        "repetition_penalty": 1.3,
        "frequency_penalty": 0.7,
        "presence_penalty": 1.1,
        "logit_bias": {4: 3.0},
        "min_tokens": 6,
        "watermark": True,
        "seed": 5,
    }
    engine.add(request(0, num_tokens=6, max_new_tokens=9, **params))
    tokens = run_to_end(engine)[0]

    prompt_ids = request(0, num_tokens=6).prompt_ids
    engine.add(
        request(1, prompt_ids=prompt_ids, output_ids=tokens[:num_had], max_new_tokens=9, **params)
    )
    rest = run_to_end(engine)[1]

    assert rest == tokens[num_had:]


def test_end_of_sequence_ends_and_is_the_last_token():
    prompt = [3, 4, 5]
    first, second = expected_tokens(prompt, 2)
    engine, _ = make_engine(eos_token_ids=(second,))
    engine.add(request(0, prompt_ids=prompt, max_new_tokens=9))

    outputs = [engine.step().outputs[0] for _ in range(2)]

    assert [output.token_ids for output in outputs] == [[first], [second]]
    assert outputs[-1].finish_reason is FinishReason.EOS_TOKEN
    assert not engine.has_work


def test_length_wins_over_end_of_sequence_on_the_last_permitted_token():
    prompt = [3, 4, 5]
    engine, _ = make_engine(eos_token_ids=tuple(expected_tokens(prompt, 1)))
    engine.add(request(0, prompt_ids=prompt, max_new_tokens=1))

    output = engine.step().outputs[0]

    assert output.finish_reason is FinishReason.LENGTH


def test_an_aborted_request_frees_its_blocks_at_once_and_says_no_more():
    engine, _ = make_engine()
    engine.add(request(0, max_new_tokens=50))
    engine.add(request(1, max_new_tokens=2))
    engine.step()

    engine.abort(0)
    output = engine.step()

    assert [seq.request_id for seq in output.outputs] == [1]
    assert output.stats.num_blocks_used == 0
    assert not engine.has_work


@pytest.mark.parametrize(
    "bad",
    [
        request(0, num_tokens=63, max_new_tokens=2),
        request(0, prompt_ids=[1, 97], max_new_tokens=2),
        request(0, prompt_ids=[-1], max_new_tokens=2),
        request(0, prompt_ids=[1], output_ids=[1, 2], max_new_tokens=2),
        request(0, logit_bias={97: 1.0}),
    ],
    ids=["too_long", "id_too_large", "id_negative", "nothing_to_generate", "bias_id_too_large"],
)
def test_a_request_that_cannot_run_fails_alone(bad):
    engine, _ = make_engine()
    engine.add(bad)
    engine.add(request(1, max_new_tokens=2))

    output = engine.step()

    assert [failure.request_id for failure in output.failures] == [0]
    assert len(run_to_end(engine)[1]) == 1


def test_started_names_a_request_once_with_the_step_that_first_works_on_it():
    engine, _ = make_engine(max_step_tokens=4)
    engine.add(request(0, num_tokens=7, max_new_tokens=3))
    engine.add(request(1, num_tokens=2, max_new_tokens=3))

    started = []
    while engine.has_work:
        started.append(engine.step().started)

    assert started[:3] == [[0], [1], []]
    assert functools.reduce(operator.iadd, started, []) == [0, 1]
