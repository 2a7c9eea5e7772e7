"""Folders of pickled weights to folders of safetensors, without the process around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from tests.builders.conversion import convert_here, read_tensors, save_pickle, write_config
from tgi_cli.errors import ConversionError
from tgi_cli.runtime.hub.convert import plan as plan_module
from tgi_cli.runtime.hub.convert.from_pickles import names_left_out, plan_pickles
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MATRIX = torch.arange(20.0).view(5, 4)


def test_every_tensor_keeps_its_bits_and_its_type(tmp_path):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
    tensors = {str(kind): torch.arange(-3, 4).to(kind) for kind in kinds}
    tensors |= {"empty": torch.zeros(0, 3), "nan": torch.tensor([float("nan"), -0.0])}
    save_pickle(tmp_path / "m" / "pytorch_model.bin", tensors)

    result, _ = convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    assert result.files == ("model.safetensors",)
    written = read_tensors(tmp_path / "out")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (written[name].dtype, written[name].shape) == (tensor.dtype, tensor.shape)
        same = written[name].view(-1).view(torch.uint8) == tensor.view(-1).view(torch.uint8)
        assert bool(same.all())


def test_views_of_a_larger_storage_are_written_for_themselves(tmp_path):
    fused = torch.arange(600.0).view(6, 100)
    tensors = {"q": fused[:2], "k": fused[2:4], "column": fused[:, 7], "turned": fused.t()}
    save_pickle(tmp_path / "m" / "pytorch_model.bin", tensors)

    result, _ = convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    written = read_tensors(tmp_path / "out")
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items())
    assert result.num_bytes == (200 + 200 + 6 + 600) * 4


def tie(folder: Path) -> None:
    save_pickle(folder / "pytorch_model.bin", {HEAD: MATRIX, "x": torch.ones(3), EMBEDDING: MATRIX})


def test_of_tied_tensors_the_embedding_is_kept_and_the_head_noted(tmp_path):
    tie(tmp_path / "m")
    write_config(tmp_path / "m", tie_word_embeddings=True)

    result, _ = convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    assert result.aliases == {HEAD: EMBEDDING}
    assert read_tensors(tmp_path / "out").keys() == {EMBEDDING, "x"}
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", HEAD: EMBEDDING}


def test_a_head_that_the_architecture_reads_is_written_though_it_is_tied_in_the_file(tmp_path):
    tie(tmp_path / "m")
    write_config(tmp_path / "m", tie_word_embeddings=False)

    result, _ = convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    written = read_tensors(tmp_path / "out")
    assert result.aliases == {}
    assert torch.equal(written[HEAD], written[EMBEDDING])


@pytest.mark.parametrize(
    ("names", "is_tied", "kept"),
    [
        (["lm_head.weight", "transformer.wte.weight"], True, ["transformer.wte.weight"]),
        (["encoder.embed_tokens.weight", "shared.weight"], True, ["shared.weight"]),
        (["a.weight", "lm_head.weight"], True, ["a.weight"]),
        (["lm_head.weight", "transformer.wte.weight"], False, None),
    ],
)
def test_an_unknown_architecture_keeps_one_name_unless_it_says_that_nothing_is_tied(
    names, is_tied, kept
):
    left_out = names_left_out(names, frozenset(), is_tied=is_tied)

    assert [name for name in names if name not in left_out] == (kept or names)


@given(names=st.lists(st.text(min_size=1), min_size=2, unique=True), data=st.data())
def test_no_name_is_lost_and_none_that_is_needed_is_left_out(names, data):
    needed = frozenset(data.draw(st.sets(st.sampled_from(names))))

    left_out = names_left_out(names, needed, is_tied=True)

    kept = set(names) - left_out.keys()
    assert kept
    assert needed <= kept
    assert set(left_out.values()) <= kept


def write_shards(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {f"layer.{i}": torch.full((11, 7), float(i)) for i in range(4)}
    for number, names in enumerate((["layer.1", "layer.0"], ["layer.3", "layer.2"]), start=1):
        part = {name: tensors[name] for name in names}
        save_pickle(folder / f"pytorch_model-{number:05}-of-00002.bin", part)
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    return tensors


def test_shards_stay_shards_with_an_index(tmp_path):
    tensors = write_shards(tmp_path / "m")

    convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {
        "layer.0": "model-00001-of-00002.safetensors",
        "layer.1": "model-00001-of-00002.safetensors",
        "layer.2": "model-00002-of-00002.safetensors",
        "layer.3": "model-00002-of-00002.safetensors",
    }
    assert index["metadata"] == {"total_size": 4 * 11 * 7 * 4}
    written = read_tensors(tmp_path / "out")
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items())
    assert not (tmp_path / "out" / "pytorch_model.bin.index.json").exists()


def test_shards_that_are_larger_than_asked_for_are_cut_anew(tmp_path):
    tensors = write_shards(tmp_path / "m")

    result, _ = convert_here(
        plan_pickles, tmp_path / "m", tmp_path / "out", shard_size_bytes=11 * 7 * 4
    )

    assert len(result.files) == 4
    assert result.files[3] == "model-00004-of-00004.safetensors"
    written = read_tensors(tmp_path / "out")
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items())


def test_the_same_tensor_in_two_files_is_refused(tmp_path):
    for number in (0, 1):
        save_pickle(tmp_path / "m" / f"consolidated.{number:02}.pth", {"w": torch.ones(3)})

    with pytest.raises(ConversionError, match=r"'w' is in consolidated\.00\.pth and in consoli"):
        convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")


def test_a_cast_changes_floats_only_and_is_said_in_the_config(tmp_path):
    tensors = {"w": torch.tensor([1.0, 1 / 3]), "ids": torch.arange(5)}
    save_pickle(tmp_path / "m" / "pytorch_model.bin", tensors)
    write_config(tmp_path / "m")

    convert_here(plan_pickles, tmp_path / "m", tmp_path / "out", dtype="bfloat16")

    written = read_tensors(tmp_path / "out")
    assert torch.equal(written["w"], tensors["w"].bfloat16())
    assert torch.equal(written["ids"], tensors["ids"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"


def test_numbers_that_float16_cannot_hold_are_refused(tmp_path):
    save_pickle(tmp_path / "m" / "pytorch_model.bin", {"w": torch.tensor([1.0, 7e4])})

    with pytest.raises(ConversionError, match=r"'w'.*too large for float16"):
        convert_here(plan_pickles, tmp_path / "m", tmp_path / "out", dtype="float16")


def test_types_of_a_quantised_checkpoint_cannot_be_changed(tmp_path):
    save_pickle(tmp_path / "m" / "pytorch_model.bin", {"w.qweight": torch.ones(3)})
    write_config(tmp_path / "m", quantization_config={"quant_method": "gptq", "bits": 4})

    with pytest.raises(ConversionError, match="quantised"):
        convert_here(plan_pickles, tmp_path / "m", tmp_path / "out", dtype="bfloat16")


def test_entries_that_are_no_tensors_are_named(tmp_path):
    content = {"w": torch.ones(3), "step": 7, "a": None, "b": [], "c": "x"}
    save_pickle(tmp_path / "m" / "model.pt", content)

    result, _ = convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    assert result.notes == ("Left out, since they are no tensors: step, a, b, ….",)


def test_small_files_are_carried_over_and_code_is_not(tmp_path):
    folder = tmp_path / "m"
    save_pickle(folder / "pytorch_model.bin", {"w": torch.ones(3)})
    (folder / "additional_chat_templates").mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "LICENSE", "modeling_x.py", "x.pkl"):
        (folder / name).write_text(name)
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")

    convert_here(plan_pickles, folder, tmp_path / "out")

    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert {"tokenizer.json", "chat_template.jinja"} < names
    assert "additional_chat_templates/tool_use.jinja" in names
    assert (tmp_path / "out" / "LICENSE").exists()
    assert not {name for name in names if name.endswith((".py", ".pkl"))}


def test_progress_reaches_the_end_of_each_stage(tmp_path):
    write_shards(tmp_path / "m")

    _, progress = convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    assert [p.stage for p in progress] == sorted(
        (p.stage for p in progress), key=["hash", "write", "check"].index
    )
    for stage in ("hash", "write", "check"):
        last = [p for p in progress if p.stage == stage][-1]
        assert last.done_bytes == last.total_bytes > 0


def test_the_same_conversion_gives_the_same_bytes(tmp_path):
    write_shards(tmp_path / "m")

    for into in ("a", "b"):
        convert_here(plan_pickles, tmp_path / "m", tmp_path / into)

    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_what_is_not_on_the_disk_as_it_was_written_is_found(tmp_path, monkeypatch):
    class Rotten(SafetensorsFile):
        def read(self, name: str) -> memoryview:
            return memoryview(bytes(super().read(name).nbytes))

    monkeypatch.setattr(plan_module, "SafetensorsFile", Rotten)
    save_pickle(tmp_path / "m" / "pytorch_model.bin", {"w": torch.ones(3)})

    with pytest.raises(ConversionError, match=r"model\.safetensors: tensor 'w' isn't what was"):
        convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")


def test_a_folder_without_pickles_is_refused(tmp_path):
    write_config(tmp_path / "m")

    with pytest.raises(ConversionError, match=r"no \.bin"):
        convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")


def peak_bytes() -> int:
    """Return the most memory that this process has had since the peak was reset."""
    status = Path("/proc/self/status").read_text()
    return (
        int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10
    )


def test_memory_holds_one_tensor_at_a_time(tmp_path):
    tensor_bytes = 8 << 20
    tensors = {f"t{i}": torch.full((tensor_bytes // 4,), float(i)) for i in range(12)}
    save_pickle(tmp_path / "m" / "pytorch_model.bin", tensors)
    del tensors
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = peak_bytes()

    convert_here(plan_pickles, tmp_path / "m", tmp_path / "out")

    assert peak_bytes() - before < 4 * tensor_bytes
