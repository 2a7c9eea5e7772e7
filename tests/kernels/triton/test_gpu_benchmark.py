"""The benchmark's host code, on a stopwatch of CPU tensors and workloads of a few numbers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_device, gpu_engine, gpu_kernels
from tests.builders.engine import VOCAB_SIZE, make_engine
from tests.builders.fake_gpu import FakeGpu
from tools.kernels.peers import attention_peers
from tools.kernels.roofline import GPUS, Cost
from tools.kernels.workload import Call, Workload


class FakeStopwatch:
    name, arch, device = "NVIDIA H100 80GB HBM3", "sm_90", "cpu"

    def time_us(self, call: Callable[[], object], at_most_s: float) -> float:
        call()
        return 8.0


def workload(actual: torch.Tensor | Exception, expected: torch.Tensor, **changes: Any) -> Workload:
    def run() -> tuple[torch.Tensor, ...]:
        if isinstance(actual, Exception):
            raise actual
        return (actual,)

    fields: dict[str, Any] = {
        "op": "toy",
        "shape": "3",
        "make": lambda device: Call(run, lambda: (expected,), {"torch": run}),
        "cost": Cost(int(3.35e12 * 2e-6)),  # two microseconds of an H100
        "num_programs": 1,
        "bytes_in_flight": 1,
        "expected_fraction": 0.8,
        "reason": "it is a toy",
    }
    return Workload(**{**fields, **changes})


HALVES = torch.tensor([1.0, -2.0, 4.0]).half()


def test_a_right_kernel_is_timed_beside_its_peers_and_its_roof() -> None:
    result = gpu_kernels.run(workload(HALVES, HALVES.double()), FakeStopwatch())

    assert result.row(GPUS["H100"]) == ("toy", "3", "0.00", "8", "2", "25%", "80%", "torch 8 µs")


def test_a_device_without_a_data_sheet_has_no_roof() -> None:
    result = gpu_kernels.run(workload(HALVES, HALVES.double()), FakeStopwatch())

    assert gpu_kernels.known_gpu("NVIDIA GeForce RTX 4090") is None
    assert result.row(None)[4:6] == ("-", "-")


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (HALVES + 0.01, HALVES.double()),
        (HALVES[:2], HALVES.double()),
        (torch.tensor([1.0, float("nan"), 4.0]).half(), HALVES.double()),
        (HALVES, torch.tensor([1.0, float("nan"), 4.0]).double()),
        (torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4])),
    ],
    ids=["off", "short", "nan", "no-nan", "integers"],
)
def test_a_wrong_number_is_called_wrong_and_never_timed(actual, expected) -> None:
    result = gpu_kernels.run(workload(actual, expected), FakeStopwatch())

    assert result.failure is not None
    assert result.failure.startswith("WRONG")
    assert result.time_us == 0


def test_what_a_type_rounds_away_is_tolerated() -> None:
    exact = torch.tensor([1.0004, -2.0009, 3.9991, float("inf")]).double()

    result = gpu_kernels.run(workload(exact.half(), exact), FakeStopwatch())

    assert result.failure is None
    assert 0 < result.error < 1


def test_a_kernel_that_fails_does_not_hide_the_others(capsys) -> None:
    workloads = [
        workload(RuntimeError("illegal address\nand much more"), HALVES),
        workload(HALVES, HALVES.double()),
    ]

    exit_code = gpu.run(FakeStopwatch(), workloads, 60, engine_rows=list, is_markdown=True)

    printed = capsys.readouterr().out
    assert exit_code == 1
    assert "| FAILED: RuntimeError: illegal address |" in printed
    assert "2 workloads, 1 failures" in printed


def test_what_is_not_promised_for_the_device_is_not_run(capsys) -> None:
    only_amd = workload(HALVES, HALVES.double(), targets=("gfx942",))

    assert list(gpu_kernels.run_all([only_amd], FakeStopwatch())) == []


def test_an_engine_that_fails_does_not_hide_the_kernels(capsys) -> None:
    def fail() -> list[tuple[str, ...]]:
        raise RuntimeError("out of memory")

    right = workload(HALVES, HALVES.double())
    exit_code = gpu.run(FakeStopwatch(), [right], 60, engine_rows=fail, is_markdown=True)

    printed = capsys.readouterr()
    assert exit_code == 1
    assert "| toy | 3 |" in printed.out
    assert printed.err == "The engine failed: RuntimeError: out of memory\n"


def test_every_operation_has_its_first_turn_before_any_has_its_second() -> None:
    right = HALVES, HALVES.double()
    workloads = [
        workload(*right, op="a"),
        workload(*right, op="a", shape="7"),
        workload(*right, op="b"),
    ]

    results = gpu_kernels.run_all(workloads, FakeStopwatch())

    assert [(each.workload.op, each.workload.shape) for each in results] == [
        ("a", "3"),
        ("b", "3"),
        ("a", "7"),
    ]


def test_time_that_is_up_ends_the_table_and_not_the_run(capsys) -> None:
    exit_code = gpu.run(
        FakeStopwatch(),
        [workload(HALVES, HALVES.double())] * 3,
        0,
        engine_rows=list,
        is_markdown=False,
    )

    printed = capsys.readouterr()
    assert exit_code == 0
    assert "1 workloads, 0 failures" in printed.out
    assert "left out" in printed.err


def test_without_a_gpu_it_says_why_and_exits_with_2(monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpu, "find_gpu", lambda: "torch finds no GPU, or no driver for one")

    with pytest.raises(SystemExit) as ended:
        gpu.main([])

    assert ended.value.code == 2
    assert capsys.readouterr().err == "Not run: torch finds no GPU, or no driver for one.\n"


def test_the_engines_rows_count_what_was_generated_and_computed() -> None:
    engine, runner = make_engine(
        num_blocks=2000, max_step_tokens=2048, max_running=32, max_total_tokens=1100
    )
    ticks = iter(range(10_000))

    rows = list(gpu_engine.EngineBenchmark(engine, VOCAB_SIZE, lambda: next(ticks)).rows())

    # A second by this clock passes while each measurement runs; the first token came before it.
    assert [(row[1], row[3], row[-1]) for row in rows] == [
        ("decode, 1 at once", "7.87e+03", "127 tokens/s"),
        ("decode, 8 at once", "7.87e+03", "1,016 tokens/s"),
        ("decode, 32 at once", "7.87e+03", "4,064 tokens/s"),
        ("prefill, 1000 tokens", "1e+06", "1,000 tokens/s"),
    ]
    assert {len(row) for row in rows} == {len(gpu_kernels.COLUMNS)}
    assert len(runner.plans) == 2 * (3 * 128 + 1)


def test_a_device_is_timed_by_its_own_clock_with_other_data_in_its_cache(monkeypatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("record")

        def synchronize(self) -> None: ...

        def elapsed_time(self, other: Event) -> float:
            return 0.002 * log.count("call")  # milliseconds; the later, the slower

    properties = SimpleNamespace(name="NVIDIA L4", major=8, minor=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(gpu_device, "_FLUSH_BYTES", 100)
    monkeypatch.setattr(torch.Tensor, "zero_", lambda self: log.append(f"flush {len(self)}"))

    stopwatch = gpu_device.CudaStopwatch("cpu")
    time_us = stopwatch.time_us(lambda: log.append("call"), at_most_s=0.0)

    assert (stopwatch.name, stopwatch.arch) == ("NVIDIA L4", "sm_89")
    assert log[:5] == ["call", "flush 100", "record", "call", "record"]
    assert time_us == 8.0  # the median of five, after one that isn't counted


def test_the_demo_model_is_started_with_room_for_what_is_measured(monkeypatch) -> None:
    configs = []
    monkeypatch.setattr(gpu_engine, "open_gpu", FakeGpu)
    monkeypatch.setattr(gpu_engine.cpu, "set_num_threads", lambda num_threads: None)
    monkeypatch.setattr(
        gpu_engine,
        "load",
        lambda config, *_: configs.append(config) or SimpleNamespace(engine="an engine"),
    )

    engine, vocab_size = gpu_engine.start()

    (config,) = configs
    assert (engine, vocab_size) == ("an engine", 49152)
    assert config.num_blocks * config.block_size >= 32 * config.max_total_tokens
    assert config.device == "cuda"


def test_attention_is_timed_beside_torchs_and_flash_attns(monkeypatch) -> None:
    asked: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    package = SimpleNamespace(
        flash_attn_func=lambda q, k, v, causal: asked.append(("prefill", q.shape, k.shape)),
        flash_attn_with_kvcache=lambda q, k, v, causal: asked.append(("decode", q.shape, k.shape)),
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: package)

    decode = attention_peers(torch.zeros(3, 4, 16), 3, 9, 2)
    prefill = attention_peers(torch.zeros(9, 4, 16), 1, 9, 2)
    for peers in (decode, prefill):
        peers["flash-attn"]()

    assert asked == [
        ("decode", (3, 1, 4, 16), (3, 9, 2, 16)),
        ("prefill", (1, 9, 4, 16), (1, 9, 2, 16)),
    ]
    assert decode["torch"]().shape == (3, 4, 1, 16)
    assert prefill["torch"]().shape == (1, 4, 9, 16)
