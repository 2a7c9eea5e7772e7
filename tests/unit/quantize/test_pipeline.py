"""A tiny model through `tgi quantize`: what is written, and that it is the same every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.gguf_model import write_gguf
from tests.builders.quantize import (
    RecordingScreen,
    contents,
    read_weights,
    run_quantize,
    tiny_model,
)
from tgi_cli.errors import ArgumentError, CapacityError
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile
from tgi_cli.runtime.quantize.grid import Grid, round_to_grid
from tgi_cli.runtime.quantize.work_folder import partial_folder

PROJECTION = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def written(model: Path) -> tuple[Path, RecordingScreen]:
    output = model.parent / "written"
    return output, run_quantize(model, output, evaluation=True)


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        file = SafetensorsFile(path)
        for name, info in file.tensors.items():
            found[name] = (info.dtype, info.shape, bytes(file.read(name)))
    return found


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({"method": "rtn"}, Grid(4, 32, symmetric=True)),
        ({"method": "rtn", "sym": False}, Grid(4, 32, symmetric=False)),
        ({"method": "int8", "group_size": None}, Grid(8, -1, symmetric=True)),
        ({"method": "rtn", "bits": 3, "group_size": -1}, Grid(3, -1, symmetric=True)),
    ],
)
def test_plain_rounding_is_served_as_the_nearest_weight_of_the_grid(
    model: Path, tmp_path: Path, options: dict[str, Any], grid: Grid
) -> None:
    run_quantize(model, tmp_path / "out", **options)

    matrix = read_weights(tmp_path / "out").get_matrix(PROJECTION)
    served = matrix.dequantize() if isinstance(matrix, Codes) else matrix
    assert torch.equal(
        served, round_to_grid(read_weights(model).get(PROJECTION), grid).dequantize()
    )


@pytest.mark.parametrize(
    "options",
    [
        {"method": "gptq", "desc_act": True},
        {"method": "gptq", "sym": False},
        {"method": "awq+gptq", "format": "gptq", "bits": 3},
        {"method": "gptq", "format": "awq", "sym": True},
        {"method": "awq", "bits": 2, "sym": True},
    ],
)
def test_every_grid_and_layout_is_written_and_read(
    model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    run_quantize(model, tmp_path / "out", **options)

    weights, source = read_weights(tmp_path / "out"), read_weights(model)
    matrix, original = weights.get_matrix(PROJECTION), source.get(PROJECTION)
    served = matrix.dequantize() if isinstance(matrix, Codes) else matrix
    step = original.abs().max() / 2 ** (options.get("bits", 4) - 2)
    if "awq" not in options["method"]:  # whose scales change the weights themselves
        assert (served - original).abs().max() < step
    assert torch.isfinite(served).all()


def test_config_is_the_models_own_and_says_the_format(written, model: Path) -> None:
    output, _ = written

    config = read_json(output / "config.json")

    described = config.pop("quantization_config")
    assert config == read_json(model / "config.json")
    assert described == read_json(output / "quantize_config.json")
    assert described == {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "damp_percent": 0.05,
        "static_groups": True,
        "true_sequential": True,
    }


def test_embeddings_head_and_final_norm_are_as_they_were(written, model: Path) -> None:
    output, _ = written
    before, after = tensors(model), tensors(output)

    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert after[name] == before[name]
    assert after.keys().isdisjoint(name for name in before if name.endswith("_proj.weight"))


def test_tokenizer_and_template_are_carried_over(written, model: Path) -> None:
    output, _ = written

    assert locate_model(str(output)).text == locate_model(str(model)).text


def test_report_has_every_figure_and_is_part_of_the_card(written) -> None:
    output, screen = written

    report = json.loads((output / "report.json").read_text())

    assert report == screen.reports[0][1]
    for figures in (report["quality"], report["rounding"]):
        assert figures["greedy"]["num_prompts"] == 32
        assert figures["mean_kl"] > 0
    assert report["after"]["file_bytes"] < report["before"]["file_bytes"]
    assert report["after"]["decode_tokens_per_s"] > 0
    assert len(report["layers"]) == 3
    assert report["layers"][2]["projections"][6]["damping"] >= 0.05
    card = (output / "README.md").read_text()
    assert "Calibrated on 72 tokens of the text quantize.py (3 windows of 24, seed 0)" in card
    for told in (card, screen.reports[0][0]):
        assert "Measured on 48 tokens of text that ships with tgi (general, held out)" in told
    assert f"{report['quality']['mean_kl']:.4f}" in card
    assert "not measured" not in card


def test_what_nobody_measured_is_said_to_be_so(model: Path, tmp_path: Path) -> None:
    run_quantize(model, tmp_path / "out", method="rtn")

    assert json.loads((tmp_path / "out" / "report.json").read_text())["quality"] is None
    assert (
        "| perplexity                     | not measured | not measured |"
        in (tmp_path / "out" / "README.md").read_text()
    )


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_biases_and_head_norms_are_written(tmp_path: Path, family: str) -> None:
    model = tiny_model(tmp_path / "model", family)

    screen = run_quantize(model, tmp_path / "out", method="awq+gptq", evaluation=True)

    kept = {name for name in tensors(model) if not name.endswith("_proj.weight")}
    assert kept <= tensors(tmp_path / "out").keys()
    assert screen.reports[0][1]["quality"]["mean_kl"] < 0.2


def test_a_tied_head_is_not_written_twice(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", tie_word_embeddings=True)

    run_quantize(model, tmp_path / "out", method="rtn")

    assert "lm_head.weight" not in tensors(tmp_path / "out")
    assert locate_model(str(tmp_path / "out")).config.tie_word_embeddings


def test_a_gguf_file_becomes_a_folder_like_any_other(model: Path, tmp_path: Path) -> None:
    write_gguf(locate_model(str(model)), tmp_path / "model.gguf")

    run_quantize(tmp_path / "model.gguf", tmp_path / "out", method="rtn")

    located = locate_model(str(tmp_path / "out"))
    assert located.text == locate_model(str(tmp_path / "model.gguf")).text
    assert located.eos_token_ids == (2,)
    run_quantize(model, tmp_path / "of_folder", method="rtn")
    assert tensors(tmp_path / "out") == tensors(tmp_path / "of_folder")


def test_shards_have_an_index(model: Path, tmp_path: Path) -> None:
    run_quantize(model, tmp_path / "out", method="rtn", shard_size=60_000)

    index = read_json(tmp_path / "out" / "model.safetensors.index.json")
    assert len(set(index["weight_map"].values())) > 2
    assert index["weight_map"].keys() == tensors(tmp_path / "out").keys()
    locate_model(str(tmp_path / "out"))


def test_the_same_options_give_the_same_bytes(written, model: Path, tmp_path: Path) -> None:
    run_quantize(model, tmp_path / "out", evaluation=True)

    assert contents(tmp_path / "out") == contents(written[0])


@pytest.mark.parametrize("method", ["gptq", "awq", "awq+gptq"])
@pytest.mark.parametrize("num_done", [1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    model: Path, tmp_path: Path, method: str, num_done: int
) -> None:
    def stop(done: int) -> None:
        if done == num_done:
            raise KeyboardInterrupt

    run_quantize(model, tmp_path / "whole", method=method)
    with pytest.raises(KeyboardInterrupt):
        run_quantize(model, tmp_path / "out", method=method, screen=RecordingScreen(stop))
    assert not (tmp_path / "out").exists()

    screen = run_quantize(model, tmp_path / "out", method=method, resume=True)

    assert screen.layers == [2, 3][num_done - 1 :]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not partial_folder(tmp_path / "out").exists()


def test_a_layer_that_was_damaged_on_the_disk_is_done_again(model: Path, tmp_path: Path) -> None:
    def damage(done: int) -> None:
        if done == 2:
            layer = partial_folder(tmp_path / "out") / "layers" / "00000.safetensors"
            raw = bytearray(layer.read_bytes())
            raw[-1] ^= 1
            layer.write_bytes(raw)
            raise KeyboardInterrupt

    run_quantize(model, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_quantize(model, tmp_path / "out", screen=RecordingScreen(damage))

    screen = run_quantize(model, tmp_path / "out", resume=True)

    assert screen.layers == [1, 3]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_going_on_with_other_options_is_refused(model: Path, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_quantize(model, tmp_path / "out", screen=RecordingScreen(stop))

    with pytest.raises(ArgumentError, match=r"--damp was 0.05 .* 0.02 now"):
        run_quantize(model, tmp_path / "out", resume=True, damp=0.02)
    with pytest.raises(ArgumentError, match="holds the work of an earlier run"):
        run_quantize(model, tmp_path / "out")


def test_a_plan_writes_nothing(model: Path, tmp_path: Path) -> None:
    screen = run_quantize(model, tmp_path / "out", dry_run=True)

    text, plan = screen.reports[0]
    assert list(tmp_path.iterdir()) == []
    assert plan["num_layers"] == 3
    assert plan["projections"]["mlp.down_proj"] == [64, 96]
    assert "memory at most" in text


def test_a_plan_that_does_not_fit_is_shown_and_refused(model: Path, tmp_path: Path) -> None:
    screen = RecordingScreen()

    with pytest.raises(CapacityError, match="--max-memory allows"):
        run_quantize(model, tmp_path / "out", dry_run=True, max_memory=1_000_000, screen=screen)

    assert screen.reports[0][1]["memory_bytes"] > 1_000_000


def test_a_plan_knows_the_size_of_the_result(written, model: Path, tmp_path: Path) -> None:
    screen = run_quantize(model, tmp_path / "out", dry_run=True)

    assert screen.reports[0][1]["output_bytes"] == locate_model(str(written[0])).weights.num_bytes
