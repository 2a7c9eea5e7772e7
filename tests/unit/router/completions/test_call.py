"""Which runs a call of `/v1/completions` takes, and which of them are its choices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.router.bodies import BodyError
from tgi_cli.runtime.router.completions.call import CompletionCall
from tgi_cli.runtime.router.completions.prompts import split_prompts
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.schemas.completions import CompletionRequest
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.service import Prompt
from tgi_cli.runtime.router.tokens import GeneratedToken


def make_call(n: int, runs_per_prompt: int, seed: int | None = None) -> CompletionCall:
    return CompletionCall(
        body=CompletionRequest(prompt="x"),
        prompts=[Prompt("x"), Prompt("y")],
        parameters=GenerateParameters(seed=seed),
        n=n,
        runs_per_prompt=runs_per_prompt,
        num_top=None,
    )


def finished(name: str, *logprobs: float):
    return name, [GeneratedToken(1, "", logprob, False, None) for logprob in logprobs]


def test_the_best_runs_of_each_prompt_are_chosen_by_their_mean():
    runs = [
        finished("x0", -3.0),
        finished("x1", -1.0, -1.0, -1.0),
        finished("x2", -2.0),
        finished("y0", -1.0),
        finished("y1", -1.0),
        finished("y2", -0.5),
    ]

    chosen = make_call(n=2, runs_per_prompt=3).chosen(runs)

    assert [name for name, _ in chosen] == ["x1", "x2", "y2", "y0"]


def test_runs_that_are_all_wanted_stay_in_their_order():
    runs = [finished("x0", -3.0), finished("x1", -1.0), finished("y0", -2.0), finished("y1", 0.0)]

    assert make_call(n=2, runs_per_prompt=2).chosen(runs) == runs


@given(seed=st.integers(0, 2**64 - 1))
def test_each_run_of_a_prompt_has_a_seed_of_its_own_and_the_first_the_requests(seed):
    runs = make_call(n=4, runs_per_prompt=4, seed=seed).runs()

    seeds = [parameters.seed for _, parameters in runs]
    assert seeds[0] == seeds[4] == seed  # a prompt gives what it would give alone
    assert seeds[:4] == seeds[4:]
    assert len(set(seeds)) == 4
    assert all(0 <= each < 2**64 for each in seeds)


def test_without_a_seed_no_run_has_one():
    runs = make_call(n=2, runs_per_prompt=2).runs()

    assert [parameters.seed for _, parameters in runs] == [None] * 4


ITEMS = st.one_of(st.text(max_size=3), st.integers(), st.lists(st.integers(), max_size=3))


@given(prompt=st.one_of(st.text(max_size=3), st.lists(ITEMS, max_size=4)))
def test_prompts_are_of_one_kind_or_refused(prompt):
    kinds = {type(item) for item in prompt} if isinstance(prompt, list) else {str}
    if len(kinds) != 1:
        with pytest.raises(BodyError):
            split_prompts(prompt)
        return

    prompts = split_prompts(prompt)

    if isinstance(prompt, str) or kinds == {int}:
        assert prompts == [prompt]
    else:
        assert prompts == prompt


def test_the_list_form_of_logit_bias_is_ignored_and_the_object_kept():
    listed = CompletionRequest(prompt="x", logit_bias=[0.5, 1.0])
    named = CompletionRequest(prompt="x", logit_bias={"5": 1.5})

    assert openai.sampling_parameters(listed).logit_bias is None
    assert openai.sampling_parameters(named).logit_bias == {"5": 1.5}
