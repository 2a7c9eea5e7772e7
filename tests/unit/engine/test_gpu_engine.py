"""The whole loop of a GPU, runner, graphs, staging and samplers, says what the CPU's loop says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import request, run_to_end
from tests.builders.fake_gpu import FakeGpu
from tests.builders.gpu_model import gpu_config, make_gpu_engine, make_plain_runner
from tgi_cli.errors import EngineDiedError
from tgi_cli.runtime.engine.engine import STEP_FAILED, Engine
from tgi_cli.runtime.ipc.messages import NewRequest, SequenceOutput

SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "temperature": 3.0, "seed": 7},
    {"repetition_penalty": 1.9, "frequency_penalty": 1.5},
    {"watermark": True, "do_sample": True, "temperature": 3.0, "seed": 1},
]


def play(engine: Engine, schedule: list[list[NewRequest]]) -> dict[int, list[SequenceOutput]]:
    """Step through arrivals, then to the end; return what each request was told."""
    told: dict[int, list[SequenceOutput]] = {}
    arrivals = list(schedule)
    while arrivals or engine.has_work:
        for new in arrivals.pop(0) if arrivals else []:
            engine.add(new)
        if engine.has_work:
            output = engine.step()
            engine.check_integrity()
            assert not output.failures
            for seq in output.outputs:
                told.setdefault(seq.request_id, []).append(seq)
    return told


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[NewRequest]]:
    schedule: list[list[NewRequest]] = []
    for request_id in range(draw(st.integers(1, 7))):
        schedule += [[] for _ in range(draw(st.integers(0, 3)))]
        new = request(
            request_id,
            num_tokens=draw(st.integers(1, 70)),
            max_new_tokens=draw(st.integers(1, 12)),
            scores_prompt=draw(st.integers(0, 6)) == 0,
            **draw(st.sampled_from(SAMPLINGS)),
        )
        schedule.append([new])
    return schedule


@settings(max_examples=40, deadline=None)
@given(
    schedule=arrivals(),
    max_step_tokens=st.integers(5, 90),
    num_blocks=st.integers(15, 60),
    eos_token_ids=st.sets(st.integers(0, 96), max_size=9),
    cuda_graphs=st.sampled_from([(), (1, 2, 4, 6), (3,)]),
    reserved_new_tokens=st.sampled_from([1, 1024]),
    # Far enough apart that a second try goes well.
    out_of_memory_at=st.sets(st.integers(0, 9).map(lambda index: 7 * index), max_size=4),
)
def test_everyone_is_told_what_the_cpus_loop_tells(
    schedule, reserved_new_tokens, out_of_memory_at, **changes
):
    changes["eos_token_ids"] = tuple(changes["eos_token_ids"])
    config = gpu_config(**changes)
    gpu = FakeGpu()
    engine, _ = make_gpu_engine(gpu, config, reserved_new_tokens=reserved_new_tokens)
    plain = Engine(config, make_plain_runner(config))
    gpu.out_of_memory_at = {gpu.num_launches + launch for launch in out_of_memory_at}

    told = play(engine, schedule)

    assert told == play(plain, schedule)
    stats = engine.report().stats
    assert stats.num_blocks_used == stats.num_reserved_tokens == stats.num_running == 0


def test_the_host_waits_for_the_device_once_a_step():
    gpu = FakeGpu()
    engine, _ = make_gpu_engine(gpu, gpu_config(cuda_graphs=(1, 2)))
    engine.add(request(0, max_new_tokens=9))
    engine.add(request(1, max_new_tokens=9))
    engine.step()
    gpu.calls.clear()

    num_steps = 0
    while engine.has_work:
        engine.step()
        num_steps += 1

    assert num_steps == 8
    waits = [call for call in gpu.calls if call[0] in ("event", "synchronize", "replay")]
    # One more at each launch is for the copies of the step before the last, which is over.
    assert len(waits) == num_steps + (num_steps - 1)


def test_a_step_is_on_the_device_before_the_one_before_it_is_waited_for():
    gpu = FakeGpu()
    engine, _ = make_gpu_engine(gpu, gpu_config(cuda_graphs=(2,)))
    engine.add(request(0, max_new_tokens=9))
    engine.step()
    gpu.calls.clear()

    engine.step()

    names = [detail or kind for kind, detail in gpu.calls]
    assert (
        names.index("replay") < names.index("to host") < len(names) - 1 - names[::-1].index("event")
    )


def test_prompts_too_large_for_the_memory_are_taken_in_parts_and_nobody_is_lost(caplog):
    config = gpu_config(max_step_tokens=64)
    gpu = FakeGpu()
    engine, model = make_gpu_engine(gpu, config)
    model.bytes_per_token = 1 << 20
    gpu.max_launch_bytes = 11 << 20
    requests = [request(i, num_tokens=5, max_new_tokens=4) for i in range(6)]

    results = []
    for each in (engine, Engine(config, make_plain_runner(config))):
        for req in requests:
            each.add(req)
        results.append(run_to_end(each))

    assert results[0] == results[1]
    assert ("empty_cache", "") in gpu.calls


def test_one_that_does_not_fit_alone_is_told_and_no_other_is_lost(caplog):
    config = gpu_config(max_step_tokens=64)
    gpu = FakeGpu()
    engine, model = make_gpu_engine(gpu, config)
    model.bytes_per_token = 1 << 20
    gpu.max_launch_bytes = 11 << 20
    sizes = [3, 30, 5]
    for index, size in enumerate(sizes):
        engine.add(request(index, num_tokens=size, max_new_tokens=3))

    failures, counts = {}, dict.fromkeys(range(3), 0)
    while engine.has_work:
        output = engine.step()
        failures |= {failure.request_id: failure.message for failure in output.failures}
        for seq in output.outputs:
            counts[seq.request_id] += len(seq.token_ids)

    assert failures == {1: STEP_FAILED}
    assert counts == {0: 3, 1: 0, 2: 3}


@pytest.mark.parametrize("launch", range(6))
def test_a_device_that_breaks_ends_the_engine_whatever_it_was_at(launch, caplog):
    gpu = FakeGpu()
    engine, _ = make_gpu_engine(gpu, gpu_config(cuda_graphs=(1,)))
    engine.add(request(0, max_new_tokens=9))
    gpu.breaks_at = gpu.num_launches + launch

    with pytest.raises(EngineDiedError):
        run_to_end(engine)


def test_a_row_without_numbers_fails_its_request_alone(caplog):
    gpu = FakeGpu()
    engine, model = make_gpu_engine(gpu, gpu_config(cuda_graphs=(2,)))
    engine.add(request(0, prompt_ids=[1, 2], max_new_tokens=3))
    engine.add(request(1, prompt_ids=[3, 4], max_new_tokens=3))
    model._embedding[2] = math.nan

    failed, told = [], []
    while engine.has_work:
        output = engine.step()
        failed += [failure.request_id for failure in output.failures]
        told += [seq.request_id for seq in output.outputs]

    assert failed == [0]
    assert told == [1, 1, 1]
