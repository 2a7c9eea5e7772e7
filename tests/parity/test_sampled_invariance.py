"""The promise for everything that is reported: tokens, log-probabilities, best tokens and scores of
the prompt are the same alone, among others, in chunks and after a preemption.
"""

from __future__ import annotations

import pytest

from tests.builders.model import engine_config, make_runner
from tgi_cli.kernels import native
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.ipc.messages import NewRequest, SequenceOutput
from tgi_cli.runtime.types import SamplingParams

NUM_NEW_TOKENS = 24
LIMITS = {"max_total_tokens": 160, "num_blocks": 60, "max_running": 12}
EVERYTHING = {
    "do_sample": True,
    "temperature": 0.9,
    "top_k": 400,
    "top_p": 0.95,
    "min_p": 0.001,
    "typical_p": 0.97,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.3,
    "presence_penalty": -0.2,
    "logit_bias": {5: 2.0, 77: -9.0},
    "min_tokens": 4,
    "watermark": True,
}

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="without the native library torch promises nothing"
)


@pytest.fixture(scope="module")
def runner() -> Runner:
    return make_runner(engine_config(locate_model("demo"), **LIMITS))


def make_engine(runner: Runner, *, reserved_new_tokens: int = 1024, **changes: int) -> Engine:
    config = engine_config(locate_model("demo"), **LIMITS | changes)
    return Engine(config, runner, reserved_new_tokens=reserved_new_tokens)


def make_request(index: int, **sampling: object) -> NewRequest:
    return NewRequest(
        index,
        [(7919 * index + 131 * i) % 49152 for i in range(3 + 17 * index)],
        NUM_NEW_TOKENS,
        SamplingParams(seed=index, **sampling),  # type: ignore[arg-type]
        ignore_eos=True,
        top_n_tokens=3,
        scores_prompt=True,
        prompt_top_n=2,
    )


def run(
    engine: Engine, requests: list[NewRequest], min_preempted: int = 0
) -> dict[int, list[SequenceOutput]]:
    for request in requests:
        engine.add(request)
    num_preempted = 0
    outputs: dict[int, list[SequenceOutput]] = {}
    while engine.has_work:
        step = engine.step()
        assert not step.failures
        num_preempted += step.stats.num_preempted
        for output in step.outputs:
            outputs.setdefault(output.request_id, []).append(output)
    assert num_preempted >= min_preempted
    return outputs


def test_everything_reported_is_the_same_alone_and_in_company(runner):
    requests = [make_request(i, **EVERYTHING) for i in range(4)]
    company = [make_request(i) for i in range(4, 7)]

    alone = {i: run(make_engine(runner), [requests[i]])[i] for i in range(4)}
    together = run(make_engine(runner), [*company, *requests])
    in_chunks = run(make_engine(runner, max_step_tokens=13), [*requests, *company])
    crowded = make_engine(runner, reserved_new_tokens=1, num_blocks=6)
    preempted = run(crowded, [*requests, *company], min_preempted=1)

    for outcome in (together, in_chunks, preempted):
        for index, outputs in alone.items():
            assert outcome[index] == outputs, index
    for index, outputs in alone.items():
        assert len(outputs[0].prompt_scores) == len(requests[index].prompt_ids) - 1
        assert all(output.top_tokens[0] for output in outputs)
