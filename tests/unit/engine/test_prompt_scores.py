"""Scores of a prompt's own tokens, whatever the steps in which the prompt is computed."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import VOCAB_SIZE, make_engine, request, scores_after
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.sampling.prompt_scores import score_prompt
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.ipc.messages import NewRequest, PromptScore


def scored(request_id: int = 0, num_tokens: int = 5, **options: int) -> NewRequest:
    plain = request(request_id, num_tokens, options.pop("max_new_tokens", 3), ignore_eos=True)
    return msgspec.structs.replace(plain, scores_prompt=True, **options)


def expected_logprobs(prompt_ids: list[int]) -> list[float]:
    rows = [scores_after(sum(prompt_ids[:i])) for i in range(1, len(prompt_ids))]
    return [
        float(torch.log_softmax(row, -1)[token_id])
        for row, token_id in zip(rows, prompt_ids[1:], strict=True)
    ]


def collect_scores(engine: Engine) -> dict[int, list[list[PromptScore]]]:
    """Run to the end; return what scores came with each output of each request."""
    scores: dict[int, list[list[PromptScore]]] = {}
    while engine.has_work:
        for output in engine.step().outputs:
            scores.setdefault(output.request_id, []).append(output.prompt_scores)
    return scores


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    max_step_tokens=st.integers(1, 40),
    num_blocks=st.integers(13, 40),
    prompt_top_n=st.integers(0, 2),
)
def test_scores_come_once_with_the_first_token_whatever_chunks_or_preemption(
    sizes, max_step_tokens, num_blocks, prompt_top_n
):
    engine, _ = make_engine(
        max_step_tokens=max_step_tokens, num_blocks=num_blocks, reserved_new_tokens=1
    )
    requests = [
        scored(i, n, prompt_top_n=prompt_top_n, max_new_tokens=20) for i, n in enumerate(sizes)
    ]

    for each in requests:
        engine.add(each)
    scores = collect_scores(engine)

    for each in requests:
        first, *later = scores[each.request_id]
        assert not any(later)
        logprobs = [score.logprob for score in first]
        assert logprobs == pytest.approx(expected_logprobs(each.prompt_ids), abs=1e-5)
        assert all(len(score.top) >= prompt_top_n for score in first)
        assert all(bool(score.top) == bool(prompt_top_n) for score in first)


def test_requests_that_ask_for_no_scores_get_none_beside_one_that_does():
    engine, _ = make_engine()
    engine.add(scored(0))
    engine.add(request(1))

    scores = collect_scores(engine)

    assert len(scores[0][0]) == 4
    assert scores[1] == [[], [], []]


def test_a_resumed_request_is_not_sent_its_scores_again():
    engine, _ = make_engine()
    engine.add(scored(0, output_ids=[4, 5], max_new_tokens=4))

    scores = collect_scores(engine)

    assert scores[0] == [[], []]


def test_the_best_of_a_prompts_token_are_the_rows_own():
    seq = Sequence(scored(num_tokens=4, prompt_top_n=3))
    logits = torch.randn(3, VOCAB_SIZE, generator=torch.Generator().manual_seed(2))
    logits[1, 7] = math.nan

    score_prompt(seq, logits)

    logprobs = torch.log_softmax(logits.double(), -1)
    for row in (0, 2):
        score = seq.prompt_scores[row]
        assert score.logprob == pytest.approx(
            float(logprobs[row, seq.token_ids[row + 1]]), abs=1e-5
        )
        best = logprobs[row].topk(3)
        assert [entry.id for entry in score.top] == best.indices.tolist()
        assert [e.logprob for e in score.top] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert math.isnan(seq.prompt_scores[1].logprob)
    assert seq.prompt_scores[1].top == []
