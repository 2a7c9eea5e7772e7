"""A step on a GPU: what is uploaded, what is captured, and that neither changes a bit."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import TINY_MODEL, VOCAB_SIZE, request
from tests.builders.fake_gpu import FakeGpu
from tests.builders.gpu_model import ToyAttention, gpu_config, make_gpu_runner, make_plain_runner
from tgi_cli.errors import EngineDiedError
from tgi_cli.runtime.engine.determinism import Stepper
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.gpu_runner import GpuRunner
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.engine.sequence import PENDING, Sequence

WINDOWED = msgspec.structs.replace(TINY_MODEL, sliding_window=5)
LENGTHS = [1, 5, 33, 40]


def prompts(lengths: list[int]) -> list[list[int]]:
    return [[(7 * i + 3 * j) % VOCAB_SIZE for j in range(n)] for i, n in enumerate(lengths)]


def run_forced(runner: GpuRunner | Runner, config: Any, steps: int = 3) -> list[torch.Tensor]:
    """Prefill prompts together, decode forced tokens together; return the logits of each step."""
    stepper = Stepper(runner, config)  # type: ignore[arg-type]
    sequences = [stepper.add(prompt) for prompt in prompts(LENGTHS)]
    logits = []
    for step in range(steps):
        rows = stepper.step((seq, seq.num_uncomputed_tokens) for seq in sequences)
        logits.append(torch.stack(list(rows.values())))
        for seq in sequences:
            seq.token_ids.append((11 * step + seq.request_id) % VOCAB_SIZE)
    return logits


def assert_same_bits(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("model", [TINY_MODEL, WINDOWED], ids=["whole", "windowed"])
@pytest.mark.parametrize("sizes", [[], [1, 2, 4, 8], [4], [2]], ids=str)
def test_steps_have_the_bits_of_the_plain_runners_captured_or_not(model, sizes):
    config = gpu_config(model=model)
    gpu = FakeGpu()
    runner, _, _ = make_gpu_runner(gpu, config)
    plain = make_plain_runner(config)

    runner.capture_graphs(sizes)
    gpu.calls.clear()
    found = run_forced(runner, config)

    assert_same_bits(found, run_forced(plain, config))
    replays = gpu.calls_of("launch").count(("launch", "replay"))
    assert replays == (2 if max(sizes, default=0) >= len(LENGTHS) else 0)


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(1, 6), size=st.integers(1, 9))
def test_rows_that_fill_up_a_graph_change_nobodys_bits_and_no_block(num_rows, size):
    config = gpu_config()
    runner, _, _ = make_gpu_runner(FakeGpu(), config)
    eager, _, _ = make_gpu_runner(FakeGpu(), config)
    runner.capture_graphs([size])

    results = []
    for each in (runner, eager):
        stepper = Stepper(each, config)  # type: ignore[arg-type]
        sequences = [stepper.add(prompt) for prompt in prompts(list(range(1, num_rows + 1)))]
        stepper.step((seq, seq.num_tokens) for seq in sequences)
        for seq in sequences:
            seq.token_ids.append(seq.request_id)
        results.append(list(stepper.step((seq, 1) for seq in sequences).values()))

    assert_same_bits(*results)
    [cache], [untouched] = runner._kv_cache.layers, eager._kv_cache.layers
    assert torch.equal(cache, untouched)


def test_a_step_waits_for_nothing():
    config = gpu_config()
    gpu = FakeGpu()
    runner, _, _ = make_gpu_runner(gpu, config)
    runner.capture_graphs([1, 2, 4])
    gpu.synchronize()
    gpu.calls.clear()

    run_forced(runner, config, steps=2)

    assert gpu.calls_of("synchronize") == []
    assert all(event == ("event", "") for event in gpu.calls_of("event"))
    assert len(gpu.calls_of("event")) == 2  # of staging, for the step before the last


def test_a_token_that_only_the_device_knows_is_read_there():
    config = gpu_config()
    runner, _, _ = make_gpu_runner(FakeGpu(), config)
    runner.capture_graphs([2])
    known, _, _ = make_gpu_runner(FakeGpu(), config)

    found, expected = [], []
    for each, logits in ((runner, found), (known, expected)):
        stepper = Stepper(each, config)  # type: ignore[arg-type]
        sequences = [stepper.add(prompt) for prompt in prompts([3, 6])]
        first = stepper.step((seq, seq.num_tokens) for seq in sequences)
        sampled = torch.stack(list(first.values())).argmax(-1)
        each.keep(sampled)
        for seq, token_id in zip(sequences, sampled.tolist(), strict=True):
            seq.token_ids.append(PENDING if each is runner else token_id)
        logits += stepper.step((seq, 1) for seq in sequences).values()

    assert_same_bits(found, expected)


def test_of_block_tables_only_lines_with_new_blocks_are_copied():
    config = gpu_config()
    gpu = FakeGpu()
    runner, _, _ = make_gpu_runner(gpu, config)
    stepper = Stepper(runner, config)  # type: ignore[arg-type]
    sequences = [stepper.add(prompt) for prompt in prompts([6, 9])]

    counts = []
    for _ in range(4):
        gpu.calls.clear()
        stepper.step((seq, seq.num_uncomputed_tokens) for seq in sequences)
        counts.append(len(gpu.calls_of("copy")))
        for seq in sequences:
            seq.token_ids.append(1)

    everything_else = counts[1]
    assert counts == [everything_else + n for n in (2, 0, 1, 0)]


def test_a_prompt_is_scored_and_sequences_without_a_next_token_give_no_row():
    config = gpu_config(max_step_tokens=7)
    plain = make_plain_runner(config)
    runner, _, _ = make_gpu_runner(FakeGpu(), config)
    new = request(0, num_tokens=20, max_new_tokens=2, scores_prompt=True)

    told = []
    for each in (runner, plain):
        engine = Engine(config, each)
        engine.add(new)
        outputs = []
        while engine.has_work:
            outputs += engine.step().outputs
        told.append(outputs)

    assert told[0] == told[1]
    assert len(told[0][0].prompt_scores) == 19


def test_cleared_blocks_are_zero_and_nothing_waits():
    gpu = FakeGpu()
    runner, _, _ = make_gpu_runner(gpu, gpu_config())
    [cache] = runner._kv_cache.layers
    cache.fill_(3)

    runner.clear_blocks([2, 5])

    assert not cache[[2, 5]].any()
    assert int((cache != 0).any(-1).any(-1).sum()) == len(cache) - 2
    assert gpu.calls_of("event", "synchronize") == []


def test_a_size_that_does_not_fit_is_left_out_and_told_once_and_the_others_are_captured(caplog):
    gpu = FakeGpu()
    runner, model, _ = make_gpu_runner(gpu, gpu_config())
    model.bytes_per_token = 1 << 20
    gpu.max_launch_bytes = 5 << 20

    with caplog.at_level(logging.WARNING):
        runner.capture_graphs([1, 2, 4, 8, 16])

    assert runner.graph_sizes == [1, 2, 4]
    [record] = [r for r in caplog.records if "cuda_graphs_left_out" in r.getMessage()]
    assert "sizes=[8, 16]" in record.getMessage()
    assert "out of memory" in record.getMessage()
    assert ("empty_cache", "") in gpu.calls


def test_graphs_are_captured_from_the_largest_down():
    gpu = FakeGpu()
    runner, _, _ = make_gpu_runner(gpu, gpu_config())

    runner.capture_graphs([2, 8, 1, 8])

    assert [len(graph.output) for graph in gpu.graphs] == [8, 2, 1]


def test_a_step_that_cannot_be_recorded_is_tried_once_and_runs_without(caplog):
    gpu = FakeGpu()
    runner, model, _ = make_gpu_runner(gpu, gpu_config())
    forward = model.forward

    def waits(*args: Any) -> torch.Tensor:
        gpu.block("a wait in the middle")
        return forward(*args)

    model.forward = waits  # type: ignore[method-assign]

    runner.capture_graphs([1, 2, 4])

    assert runner.graph_sizes == []
    assert len(gpu.calls_of("capture")) == 1
    assert "operation not permitted" in caplog.text
    assert len(run_forced(runner, gpu_config())) == 3


def test_attention_that_plans_each_step_anew_is_never_captured(monkeypatch, caplog):
    monkeypatch.setattr(ToyAttention, "is_capturable", False)
    gpu = FakeGpu()
    runner, _, _ = make_gpu_runner(gpu, gpu_config())

    with caplog.at_level(logging.INFO):
        runner.capture_graphs([1, 2])

    assert runner.graph_sizes == []
    assert gpu.calls_of("capture") == []
    assert "attention:toy" in caplog.text


def test_a_device_that_breaks_while_capturing_is_no_reason_to_go_on():
    gpu = FakeGpu()
    runner, _, _ = make_gpu_runner(gpu, gpu_config())
    gpu.breaks_at = 2

    with pytest.raises(RuntimeError, match="illegal memory access"):
        runner.capture_graphs([1, 2, 4])


def test_after_running_out_of_memory_the_cache_is_given_back_and_after_worse_the_engine_dies():
    gpu = FakeGpu()
    runner, model, _ = make_gpu_runner(gpu, gpu_config())
    model.bytes_per_token = 1 << 40
    seq = Sequence(request(0, num_tokens=3))
    seq.row, seq.block_table = 0, [0]
    plan = StepPlan(budget=9)
    plan.add(seq, 3, [0])
    with pytest.raises(torch.OutOfMemoryError) as error:
        runner.run(plan)

    runner.recover(error.value)
    assert gpu.calls[-1] == ("empty_cache", "")
    gpu.breaks_at = gpu.num_launches
    with pytest.raises(RuntimeError) as lost:
        runner.run(plan)

    with pytest.raises(EngineDiedError):
        runner.recover(lost.value)
