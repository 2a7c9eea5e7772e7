"""What a stage will send: the same for the same seed, whole, on time, and unlike an earlier run."""

from __future__ import annotations

import json

import pytest

from tests.builders.bench_tokenizers import family_tokenizer
from tgi_cli.runtime.bench.codec import LocalCodec
from tgi_cli.runtime.bench.loads import stage_specs
from tgi_cli.runtime.bench.plan import StagePlanner
from tgi_cli.runtime.bench.sources import open_source
from tgi_cli.runtime.config.bench.forms import Cancel, SharedPrefix, Warmup
from tgi_cli.runtime.config.bench.length_forms import Lengths
from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.text.tokenizer import Tokenizer

_SHORT = {
    "input_tokens": Lengths(kind="uniform", low=9, high=40),
    "output_tokens": Lengths(kind="choice", choices=((3, 1.0), (7, 1.0))),
}


def codec():
    return LocalCodec(Tokenizer(family_tokenizer("byte-level", has_bos=True)))


def make_body(prompt, output_tokens):
    content = prompt.token_ids or prompt.text or prompt.messages
    return json.dumps({"prompt": content, "max_tokens": output_tokens} | prompt.fields).encode()


def planner(*, seed=7, nonce="run 1", stage=0, token_ids=False, with_codec=True, **fields):
    options = BenchOptions(**(_SHORT | fields))
    own = codec() if with_codec else None
    return StagePlanner(
        stage_specs(options)[stage],
        open_source(options, own),
        make_body,
        seed=seed,
        nonce=nonce,
        cancel=options.cancel,
        token_ids_codec=own if token_ids else None,
    )


def window(planner, count=0):
    return planner.phase("measure", count).requests


def prompts(requests):
    return [json.loads(request.body)["prompt"] for request in requests]


def beginnings(requests):
    return [prompt[:12] for prompt in prompts(requests)]


def test_an_open_loop_is_planned_whole_and_goes_on_as_long_as_answers_may_be_late():
    plan = planner(rate=(5.0,), arrival="constant", duration=4.0, drain=3.0).phase("measure")

    times = [request.sched_s for request in plan.requests]

    assert plan.is_whole
    assert [request.index for request in plan.requests] == list(range(35))
    assert sum(time < 4.0 for time in times) == 20
    assert max(times) < 7.0


def test_the_tail_is_never_longer_than_the_window():
    requests = window(planner(rate=(5.0,), arrival="constant", duration=4.0, drain=600.0))

    assert len(requests) == 40


def test_without_tail_load_the_plan_ends_with_the_window():
    requests = window(
        planner(rate=(5.0,), arrival="constant", duration=4.0, drain=3.0, tail_load=False)
    )

    assert len(requests) == 20


def test_a_number_of_requests_ends_the_window_of_an_open_loop():
    requests = window(planner(rate=(5.0,), arrival="constant", requests=13, drain=1.0))

    assert [request.sched_s for request in requests[:13]] == pytest.approx(
        [n / 5 for n in range(13)]
    )
    assert len(requests) == 13 + 4  # the second after the last one's time


def test_a_closed_loop_is_given_as_many_as_it_asks_for_without_end():
    plan = planner(concurrency=(3,)).phase("measure", 5)

    more = plan.more(4)

    assert [request.index for request in (*plan.requests, *more)] == list(range(9))
    assert not plan.is_whole
    assert all(request.sched_s is None for request in more)


def test_a_closed_loop_of_a_number_of_requests_ends_where_no_tail_follows():
    plan = planner(concurrency=(3,), requests=7, tail_load=False).phase("measure", 5)

    more = plan.more(99)

    assert len(plan.requests) + len(more) == 7
    assert plan.is_whole


def test_what_a_request_asks_does_not_depend_on_how_it_was_asked_for():
    whole = planner(concurrency=(3,)).phase("measure", 12).requests
    plan = planner(concurrency=(3,)).phase("measure", 1)

    in_parts = [*plan.requests, *plan.more(4), *plan.more(7)]

    assert in_parts == whole


def test_the_same_seed_gives_the_same_lengths_and_times_but_other_first_tokens():
    first = window(planner(rate=(9.0,), duration=3.0, nonce="run 1"))
    second = window(planner(rate=(9.0,), duration=3.0, nonce="run 2"))

    def facts(requests):
        return [(r.sched_s, r.input_tokens, r.output_tokens) for r in requests]

    assert facts(first) == facts(second)
    assert not set(beginnings(first)) & set(beginnings(second))


def test_under_allow_two_runs_are_identical():
    first, second = (window(planner(rate=(9.0,), duration=3.0, nonce=None)) for _ in range(2))

    assert first == second


def test_another_seed_gives_another_run():
    one, other = (window(planner(rate=(9.0,), duration=3.0, seed=seed)) for seed in (1, 2))

    assert [r.sched_s for r in one[:9]] != [r.sched_s for r in other[:9]]
    assert [r.input_tokens for r in one[:9]] != [r.input_tokens for r in other[:9]]


def test_arrivals_lengths_and_text_are_independent():
    plain = window(planner(rate=(9.0,), duration=3.0, nonce=None))
    longer = window(
        planner(
            rate=(9.0,), duration=3.0, nonce=None, output_tokens=Lengths(kind="fixed", value=99)
        )
    )

    assert [r.sched_s for r in longer] == [r.sched_s for r in plain]
    assert prompts(longer) == prompts(plain)


def test_no_two_inputs_of_a_run_begin_alike():
    stages = [planner(concurrency=(3, 4), stage=stage) for stage in (0, 1)]
    requests = [
        request
        for stage in stages
        for phase in ("warmup", "measure")
        for request in stage.phase(phase, 80).requests
    ]

    assert len(set(beginnings(requests))) == len(requests) == 320


def test_a_warm_up_has_the_stage_s_load_and_inputs_of_its_own():
    made = planner(rate=(5.0,), arrival="constant", duration=4.0, warmup=Warmup(other=2.0))

    requests = made.phase("warmup").requests

    assert len(requests) == 10
    assert not set(prompts(requests)) & set(prompts(window(made)))


def test_a_warm_up_of_a_number_of_requests():
    made = planner(rate=(5.0,), warmup=Warmup(requests=3))

    assert len(made.phase("warmup").requests) == 3


def test_no_warm_up_is_empty():
    made = planner(rate=(5.0,), warmup=Warmup(requests=0))

    assert made.phase("warmup").requests == []


def test_offline_sends_everything_at_once():
    requests = window(planner(offline=True, requests=17))

    assert [request.sched_s for request in requests] == [0.0] * 17


def test_bursts_are_as_many_as_they_repeat():
    plan = planner(burst=(4,), repeat=3).phase("measure", 4)

    assert len(plan.requests) + len(plan.more(100)) == 12
    assert plan.is_whole


def test_a_share_of_the_requests_is_cancelled():
    requests = window(planner(offline=True, requests=2000, cancel=Cancel(0.05, 2.0)))

    cancelled = [request for request in requests if request.cancel_after_s is not None]
    assert {request.cancel_after_s for request in cancelled} == {2.0}
    assert 60 < len(cancelled) < 140


def test_shared_prefixes_are_shared_within_a_run_and_new_in_the_next():
    fields = {
        "offline": True,
        "requests": 200,
        "shared_prefix": SharedPrefix(30, 3, 1.1),
        "input_tokens": Lengths(kind="fixed", value=40),
    }
    own = codec()

    groups = []
    for nonce in ("run 1", "run 2"):
        requests = window(planner(nonce=nonce, **fields))
        ids = own.encode(prompts(requests), add_special_tokens=True)
        groups.append([tuple(each[:30]) for each in ids])

    counts = sorted((groups[0].count(group) for group in set(groups[0])), reverse=True)
    assert len(counts) == 3
    assert counts[0] > 1.5 * counts[2]  # some are more frequent
    assert len(set(map(tuple, own.encode(prompts(requests), add_special_tokens=True)))) == 200
    assert not set(groups[0]) & set(groups[1])


def test_priming_sends_each_prefix_once():
    made = planner(
        concurrency=(2,),
        shared_prefix=SharedPrefix(8, 3),
        input_tokens=Lengths(kind="fixed", value=30),
    )

    primers = made.primers()

    assert [primer.output_tokens for primer in primers] == [1, 1, 1]
    starts = tuple(prompts(primers))
    assert all(prompt.startswith(starts) for prompt in prompts(window(made, 20)))


def test_token_ids_are_as_long_as_planned():
    requests = window(planner(offline=True, requests=50, token_ids=True))

    assert [len(ids) for ids in prompts(requests)] == [r.input_tokens for r in requests]
    bos = codec().encode(["x"], add_special_tokens=True)[0][0]
    assert {ids[0] for ids in prompts(requests)} == {bos}
