"""GGUF files to folders, without the process around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.conversion import convert_here, read_tensors
from tests.builders.files import gguf_bytes
from tests.builders.gguf_model import write_gguf
from tgi_cli.errors import ConversionError
from tgi_cli.runtime.hub.convert.from_gguf import plan_gguf
from tgi_cli.runtime.hub.convert.messages import Job
from tgi_cli.runtime.hub.gguf_file import GgufFile
from tgi_cli.runtime.hub.locate import locate_model


def gguf_of(folder: Path, family: str = "llama", **metadata: Any) -> Path:
    write_tiny_checkpoint(folder, family, num_hidden_layers=1)
    path = folder / "m.gguf"
    write_gguf(locate_model(str(folder)), path, **metadata)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConversionError) as caught:
        plan_gguf(Job(kind="gguf", source=str(path), into="unused", shard_size_bytes=10**9))
    return caught.value.message


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_tensors_come_back_under_their_names_as_they_were(family, tmp_path):
    path = gguf_of(tmp_path / "m", family)

    convert_here(plan_gguf, path, tmp_path / "out", kind="gguf", dtype="float32")

    original, written = read_tensors(tmp_path / "m"), read_tensors(tmp_path / "out")
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in original.items())


def test_the_default_is_bfloat16_and_the_folder_is_a_model_like_the_file(tmp_path):
    path = gguf_of(tmp_path / "m")
    before = locate_model(str(path))

    result, _ = convert_here(plan_gguf, path, tmp_path / "out", kind="gguf", shard_size_bytes=30000)

    after = locate_model(str(tmp_path / "out"))
    assert len(result.files) > 1
    assert {t.dtype for t in read_tensors(tmp_path / "out").values()} == {torch.bfloat16}
    assert after.config.checkpoint_dtype == "bfloat16"
    assert after.eos_token_ids == before.eos_token_ids == (2,)
    assert after.text == before.text


def test_chat_templates_and_special_tokens_are_those_of_the_file(tmp_path):
    path = gguf_of(
        tmp_path / "m",
        **{
            "tokenizer.chat_template": "plain",
            "tokenizer.chat_template.tool_use": "tools",
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.padding_token_id": 5,
        },
    )

    convert_here(plan_gguf, path, tmp_path / "out", kind="gguf")

    text = locate_model(str(tmp_path / "out")).text
    assert text.chat_templates == {"default": "plain", "tool_use": "tools"}
    assert (text.bos_token, text.eos_token) == ("1", "t1")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 5}
    assert '"pad_token": "t5"' in (tmp_path / "out" / "tokenizer_config.json").read_text()


def test_a_quantised_file_says_how_much_it_grew_and_what_is_lost(tmp_path):
    path = gguf_of(tmp_path / "m")
    file = GgufFile(path)
    tensors: dict[str, tuple[str | int, list[int], bytes]] = {
        name: ("F32", list(info.shape), bytes(file.read(name)))
        for name, info in file.tensors.items()
    }
    tensors["token_embd.weight"] = ("Q8_0", [301, 64], bytes(301 * 64 // 32 * 34))
    path.write_bytes(gguf_bytes(dict(file.metadata), tensors))

    result, _ = convert_here(plan_gguf, path, tmp_path / "out", kind="gguf")

    [note] = result.notes
    assert "times their size (Q8_0 to bfloat16)" in note
    assert "doesn't come back" in note


def test_an_unknown_architecture_is_refused_while_planning(tmp_path):
    path = gguf_of(tmp_path / "m", **{"general.architecture": "gemma3"})

    assert "'gemma3' isn't supported" in refusal(path)


def test_a_tensor_without_a_place_is_refused(tmp_path):
    path = gguf_of(tmp_path / "m")
    file = GgufFile(path)
    tensors: dict[str, tuple[str | int, list[int], bytes]] = {
        name: ("F32", list(info.shape), bytes(file.read(name)))
        for name, info in file.tensors.items()
    }
    tensors["blk.0.attn_sinks.weight"] = ("F32", [4], bytes(16))
    path.write_bytes(gguf_bytes(dict(file.metadata), tensors))

    assert "'blk.0.attn_sinks.weight' has no place" in refusal(path)


def test_a_damaged_file_and_an_ambiguous_folder_are_refused(tmp_path):
    path = gguf_of(tmp_path / "m")
    path.write_bytes(path.read_bytes()[:-100])

    assert "truncated" in refusal(path)
    assert "0 .gguf files" in refusal(tmp_path)
    (tmp_path / "m" / "n.gguf").touch()
    assert "2 .gguf files; name one: m.gguf, n.gguf" in refusal(tmp_path / "m")


def test_a_model_in_parts_is_refused(tmp_path):
    gguf_of(tmp_path / "m", num_parts=2)

    assert "in parts can't be converted" in refusal(tmp_path / "m" / "m-00001-of-00002.gguf")
