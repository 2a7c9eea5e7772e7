"""What `tgi quantize` refuses and how; and that nothing is left that looks like a model."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.builders.quantize import RecordingScreen, run_quantize, tiny_model
from tests.builders.serving import hardware
from tgi_cli.errors import (
    ArgumentError,
    CapacityError,
    CorruptModelError,
    DiskSpaceError,
    QualityError,
    StartError,
    UnsupportedModelError,
)
from tgi_cli.runtime.config.quantize import QuantizeOptions
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.quantize import solve_layers, work_folder
from tgi_cli.runtime.quantize.evaluate_alone import evaluate
from tgi_cli.runtime.quantize.solver import LayerSolution
from tgi_cli.runtime.quantize.work_folder import partial_folder

MB = 1_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("source") / "model")


def refused(
    model: Path, output: Path, error: type[StartError], text: str, **changes: Any
) -> StartError:
    with pytest.raises(error, match=text) as caught:
        run_quantize(model, output, **changes)
    assert not list(output.glob("config.json"))
    assert not list(partial_folder(output).rglob("config.json"))
    return caught.value


def changed(model: Path, into: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    shutil.copytree(model, into)
    found = load_file(into / "model.safetensors")
    change(found)
    save_file(found, into / "model.safetensors", {"format": "pt"})
    return into


def test_a_group_size_that_does_not_divide_names_one_that_does(model: Path, tmp_path: Path) -> None:
    error = refused(model, tmp_path / "out", ArgumentError, "--group-size 64", group_size=64)

    assert error.hint == "Use --group-size 32."


@pytest.mark.parametrize(("num_shard", "text"), [(2, "whole groups of 32"), (3, "--num-shard 3")])
def test_parts_for_devices_must_hold_whole_groups(model, tmp_path, num_shard, text) -> None:
    refused(model, tmp_path / "out", ArgumentError, text, num_shard=num_shard)


def test_an_architecture_that_is_not_known_is_named(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(model, other)
    config = (other / "config.json").read_text().replace("LlamaForCausalLM", "MambaForCausalLM")
    (other / "config.json").write_text(config)

    refused(other, tmp_path / "out", UnsupportedModelError, "MambaForCausalLM")


def test_a_quantised_model_is_refused(model: Path, tmp_path: Path) -> None:
    run_quantize(model, tmp_path / "once", method="rtn")

    refused(tmp_path / "once", tmp_path / "out", UnsupportedModelError, "quantised already")


def test_an_output_that_is_not_empty_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    refused(model, tmp_path / "out", ArgumentError, "new or an empty folder")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_work_that_is_not_ours_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine.txt").write_text("mine")

    for resume in (False, True):
        refused(model, tmp_path / "out", ArgumentError, "isn't the work of", resume=resume)

    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["mine.txt"]


def test_two_runs_do_not_share_their_work(model: Path, tmp_path: Path) -> None:
    def second(_: int) -> None:
        refused(model, tmp_path / "out", ArgumentError, "another process", resume=True)

    run_quantize(model, tmp_path / "out", screen=RecordingScreen(second))


@pytest.mark.parametrize(
    "changes", [{"num_samples": 10**6}, {"evaluation_samples": 10**6, "evaluation": True}]
)
def test_a_text_that_is_too_short_is_refused_before_any_work(model, tmp_path, changes) -> None:
    changes = {"max_memory": 1 << 60, **changes}

    refused(model, tmp_path / "out", ArgumentError, "windows of 24 need", **changes)

    assert not partial_folder(tmp_path / "out").exists()


def test_a_calibration_file_that_is_too_short_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too few words.")

    refused(
        model, tmp_path / "out", ArgumentError, "short.txt", calibration=str(tmp_path / "short.txt")
    )


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x.txt", "x" * 5000])
def test_a_calibration_file_that_is_not_there_is_refused(name, model: Path, tmp_path: Path) -> None:
    refused(model, tmp_path / "out", ArgumentError, "no such file", calibration=name)


def test_windows_longer_than_the_context_are_refused(model: Path, tmp_path: Path) -> None:
    refused(model, tmp_path / "out", ArgumentError, "a context of 256", sequence_length=257)
    run_quantize(model, tmp_path / "out", method="rtn", sequence_length=257)  # has no windows


def test_weights_that_are_not_numbers_are_named(model: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    poisoned = changed(model, tmp_path / "model", lambda t: t[name][3].fill_(torch.nan))

    refused(poisoned, tmp_path / "out", CorruptModelError, name)


def test_activations_that_overflow_are_refused(model: Path, tmp_path: Path) -> None:
    name = "model.embed_tokens.weight"
    poisoned = changed(model, tmp_path / "model", lambda t: t[name].fill_(torch.inf))

    refused(poisoned, tmp_path / "out", CorruptModelError, "finite")


def test_more_memory_than_is_allowed_is_refused(model: Path, tmp_path: Path) -> None:
    refused(model, tmp_path / "out", CapacityError, "--max-memory allows", max_memory=MB)


def test_a_disk_without_room_is_refused_before_any_work(model, tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=MB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    refused(model, tmp_path / "out", DiskSpaceError, "the disk has")

    assert not partial_folder(tmp_path / "out").exists()


def test_a_disk_that_fills_up_leaves_work_that_can_go_on(model, tmp_path, monkeypatch) -> None:
    write = work_folder.write_tensors

    def full(path: Path, *args: Any) -> None:
        if path.name.startswith("00001"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(work_folder, "write_tensors", full)
        error = refused(model, tmp_path / "out", DiskSpaceError, "The disk is full")

    assert error.hint is not None
    assert "--resume" in error.hint
    screen = run_quantize(model, tmp_path / "out", resume=True)
    assert screen.layers == [2, 3]


def with_broken_scales(solve: Callable[..., Any], factor: float) -> Callable[..., Any]:
    def make(recipe: Any) -> Callable[..., Any]:
        def make_solver(forward: Any) -> Any:
            solver = solve(recipe)(forward)

            class Broken:
                needs_calibration = solver.needs_calibration
                needs_original = solver.needs_original

                def solve_layer(self, *args: Any) -> LayerSolution:
                    solution = solver.solve_layer(*args)
                    for name, solved in solution.solutions.items():
                        linear = dataclasses.replace(
                            solved.linear, scales=solved.linear.scales * factor
                        )
                        solution.solutions[name] = dataclasses.replace(solved, linear=linear)
                    return solution

            return Broken()

        return make_solver

    return make


def test_broken_scales_are_refused_by_the_report(model, tmp_path, monkeypatch) -> None:
    from tgi_cli.runtime.quantize import pipeline

    broken = with_broken_scales(pipeline.make_solver, 3.0)
    monkeypatch.setattr(pipeline, "make_solver", broken)

    text = "something is wrong with this result"
    refused(model, tmp_path / "out", QualityError, text, evaluation=True)


@pytest.mark.parametrize(
    ("bound", "text"),
    [({"max_kl": 1e-9}, "above --max-kl"), ({"max_ppl_increase": -1.0}, "Perplexity grows")],
)
def test_a_result_beyond_its_bound_is_no_model_and_can_be_measured_again(
    model: Path, tmp_path: Path, bound: dict[str, float], text: str
) -> None:
    error = refused(model, tmp_path / "out", QualityError, text, evaluation=True, **bound)

    assert error.exit_code == 3
    assert not (tmp_path / "out").exists()
    assert read_json(partial_folder(tmp_path / "out") / "report.json")["quality"]["mean_kl"] > 0
    screen = run_quantize(model, tmp_path / "out", resume=True)
    assert screen.layers == []


def test_evaluating_alone_refuses_broken_scales(model: Path, tmp_path: Path) -> None:
    run_quantize(model, tmp_path / "good")

    def spoil(found: dict[str, torch.Tensor]) -> None:
        for name, tensor in found.items():
            if name.endswith("o_proj.scales"):
                tensor.mul_(40)

    changed(tmp_path / "good", tmp_path / "bad", spoil)

    def measure(folder: Path) -> RecordingScreen:
        screen = RecordingScreen()
        options = QuantizeOptions(
            evaluate=str(folder), against=str(model), sequence_length=24, evaluation_samples=2
        )
        options = dataclasses.replace(options, max_kl=0.2)
        assert evaluate(options, hardware(num_cores=1), screen) == 0
        return screen

    assert measure(tmp_path / "good").reports[0][1]["quality"]["mean_kl"] < 0.2
    with pytest.raises(QualityError, match="KL divergence"):
        measure(tmp_path / "bad")


def test_a_model_with_another_tokenizer_is_not_measured(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "other")
    tokenizer = read_json(model / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(tokenizer))
    options = QuantizeOptions(evaluate=str(tmp_path / "other"), against=str(model))
    options = dataclasses.replace(options, sequence_length=24)

    with pytest.raises(ArgumentError, match="tokenizers that read the same text"):
        evaluate(options, hardware(num_cores=1), RecordingScreen())


def test_layers_are_solved_on_what_is_stored(model, tmp_path, monkeypatch) -> None:
    """A file that isn't served as what was solved never counts as a layer."""
    read = solve_layers.read_layer

    def wrong(*args: Any) -> dict[str, torch.Tensor]:
        found = read(*args)
        found["mlp.up_proj.weight"][0, 0] += 1
        return found

    monkeypatch.setattr(solve_layers, "read_layer", wrong)

    with pytest.raises(AssertionError, match=r"mlp\.up_proj\.weight"):
        run_quantize(model, tmp_path / "out")
