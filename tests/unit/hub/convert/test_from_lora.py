"""LoRA adapters merged into their base, without the process around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.builders.adapters import LORA_RANK, Q, factors, write_adapter
from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.conversion import convert_here, read_tensors, save_pickle
from tgi_cli.errors import ConversionError
from tgi_cli.runtime.hub.convert.from_lora import plan_lora
from tgi_cli.runtime.hub.convert.messages import Job
from tgi_cli.runtime.hub.locate import locate_model

DOWN = "model.layers.2.mlp.down_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_tiny_checkpoint(folder, dtype=torch.bfloat16)
    return folder


def merge(adapter: Path, base: Path, into: Path) -> dict[str, Tensor]:
    convert_here(plan_lora, adapter, into, kind="lora", base=str(base))
    return read_tensors(into)


def refusal(adapter: Path, base: Path) -> str:
    job = Job(kind="lora", source=str(adapter), base=str(base), into="unused", shard_size_bytes=1)
    with pytest.raises(ConversionError) as caught:
        plan_lora(job)
    return caught.value.message


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 8 / 3), (True, 8 / 3**0.5)])
def test_the_product_is_added_in_fp32_to_the_weights_named_and_to_no_other(
    use_rslora, scale, base, tmp_path
):
    tensors = factors() | factors(DOWN, 96, 64)
    adapter = write_adapter(tmp_path / "adapter", tensors, use_rslora=use_rslora)

    merged = merge(adapter, base, tmp_path / "out")

    original = read_tensors(base)
    assert merged.keys() == original.keys()
    for name, weight in original.items():
        expected = weight
        if name in (f"{Q}.weight", f"{DOWN}.weight"):
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            product = tensors[f"{prefix}.lora_B.weight"] @ tensors[f"{prefix}.lora_A.weight"]
            expected = (weight.float() + product * scale).bfloat16()
            assert not torch.equal(expected, weight)
        assert torch.equal(merged[name], expected), name


def test_the_merged_folder_is_a_model_with_the_adapters_tokenizer(base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", factors())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).write_bytes((base / name).read_bytes())
    (adapter / "chat_template.jinja").write_text("the adapter's")

    merge(adapter, base, tmp_path / "out")

    located = locate_model(str(tmp_path / "out"))
    assert located.config == locate_model(str(base)).config
    assert located.text.chat_templates == {"default": "the adapter's"}


def test_a_pickled_adapter_is_merged_too(base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", factors())
    expected = merge(adapter, base, tmp_path / "expected")
    (adapter / "adapter_model.safetensors").unlink()
    save_pickle(adapter / "adapter_model.bin", factors())

    merged = merge(adapter, base, tmp_path / "out")

    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"use_dora": True}, "it uses 'use_dora'"),
        ({"bias": "all"}, "it uses 'bias'"),
        ({"fan_in_fan_out": True}, "it uses 'fan_in_fan_out'"),
        ({"modules_to_save": ["lm_head"]}, "it uses 'modules_to_save'"),
        ({"rank_pattern": {"q_proj": 7}}, "it uses 'rank_pattern'"),
        ({"init_lora_weights": "pissa"}, "it uses 'init_lora_weights'"),
        ({"a_feature_of_tomorrow": 1}, "it uses 'a_feature_of_tomorrow'"),
        ({"r": 0}, "'r' must be"),
        ({"r": True}, "'r' must be"),
        ({"lora_alpha": "8"}, "'lora_alpha' must be"),
        ({"lora_alpha": None}, "'lora_alpha' must be"),
        ({"r": 4}, "don't fit rank 4"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(changes, reason, base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", factors(), **changes)

    assert reason in refusal(adapter, base)


A, B = factors()


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "no tensor in it"),
        ({"base_model.model.lm_head.weight": torch.ones(3)}, "holds a tensor 'base_model"),
        ({f"base_model.model.{Q}.lora_embedding_A": torch.ones(3)}, "lora_embedding_A"),
        (factors("model.layers.9.self_attn.q_proj"), "no tensor 'model.layers.9"),
        ({A: torch.ones(LORA_RANK, 64)}, "has no lora_B"),
        ({B: torch.ones(64, LORA_RANK)}, "has no lora_A"),
        (factors(num_in=65), "don't fit"),
        (factors(num_out=63), "don't fit"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_refused(tensors, reason, base, tmp_path):
    assert reason in refusal(write_adapter(tmp_path / "adapter", tensors), base)


def test_a_quantised_base_is_refused(base, tmp_path):
    tensors = read_tensors(base)
    tensors[f"{Q}.weight"] = tensors[f"{Q}.weight"].to(torch.float8_e4m3fn)
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base" / "model.safetensors")

    message = refusal(write_adapter(tmp_path / "adapter", factors()), tmp_path / "base")

    assert "F8_E4M3: quantised" in message


def test_missing_parts_are_named(base, tmp_path):
    (tmp_path / "adapter").mkdir()
    assert "adapter_config.json" in refusal(tmp_path / "adapter", base)
    adapter = write_adapter(tmp_path / "adapter", factors())
    assert "no .safetensors" in refusal(adapter, tmp_path)

    (adapter / "adapter_model.safetensors").unlink()

    assert "no adapter_model.safetensors" in refusal(adapter, base)
