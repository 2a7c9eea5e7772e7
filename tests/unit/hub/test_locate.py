from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders.checkpoints import write_tiny_checkpoint
from tgi_cli.errors import (
    CorruptModelError,
    ModelNotFoundError,
    NotAModelError,
    UnsupportedModelError,
)
from tgi_cli.runtime.hub.locate import locate_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, max_shard_size="60KB")
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_is_located_with_all_that_serving_needs(tiny):
    located = locate_model(str(tiny))

    assert located.config.family == "llama"
    assert len(located.weights.files) > 2
    assert located.weights.num_parameters * 4 == located.weights.num_bytes
    assert located.eos_token_ids  # from the tokenizer: no file names any
    assert located.text.chat_templates.keys() == {"default"}


def test_the_demo_model_is_located_without_importing_its_package():
    located = locate_model("demo")

    assert located.weights.kind == "gguf"
    assert located.eos_token_ids == (2,)
    assert located.text.eos_token == "<|im_end|>"


@pytest.mark.parametrize(("eos", "expected"), [(7, (7,)), ([7, 9], (7, 9))])
def test_end_tokens_come_from_the_generation_config_first(eos, expected, copy):
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    change_config(copy, eos_token_id=5)

    assert locate_model(str(copy)).eos_token_ids == expected


def test_a_jinja_file_is_the_first_source_of_the_chat_template(copy):
    (copy / "chat_template.jinja").write_text("from the file")

    assert locate_model(str(copy)).text.chat_templates == {"default": "from the file"}


def test_named_templates_come_from_their_own_folder(copy):
    folder = copy / "additional_chat_templates"
    folder.mkdir()
    (folder / "tool_use.jinja").write_text("with tools")

    templates = locate_model(str(copy)).text.chat_templates

    assert templates["tool_use"] == "with tools"
    assert "default" in templates  # still from tokenizer_config.json


def test_the_processors_template_is_the_last_resort(copy):
    (copy / "processor_config.json").write_text(json.dumps({"chat_template": "processor's"}))
    with_both = locate_model(str(copy)).text.chat_templates["default"]
    (copy / "tokenizer_config.json").write_text("{}")

    assert with_both != "processor's"
    assert locate_model(str(copy)).text.chat_templates == {"default": "processor's"}


def test_chat_template_json_comes_before_the_tokenizers(copy):
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}, {"x": 1}]
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": named}))

    templates = locate_model(str(copy)).text.chat_templates

    assert templates == {"default": "a", "tool_use": "b"}


@pytest.mark.parametrize("beside_the_model", ["chat_template.jinja", "unrelated.txt"])
def test_another_tokenizer_config_can_be_given(beside_the_model, copy, tmp_path_factory):
    (copy / beside_the_model).write_text("the model's own")
    path = tmp_path_factory.mktemp("other") / "t.json"
    path.write_text(json.dumps({"bos_token": {"content": "<b>"}, "chat_template": "other"}))

    text = locate_model(str(copy), tokenizer_config_path=str(path)).text

    assert text.bos_token == "<b>"
    assert text.chat_templates == {"default": "other"}


@pytest.mark.parametrize(
    ("model_id", "error"),
    [
        ("./not/there", ModelNotFoundError),
        ("/not/there", ModelNotFoundError),
        ("a/b/c", ModelNotFoundError),
        ("missing.gguf", ModelNotFoundError),
        ("not a hub id", ModelNotFoundError),
    ],
)
def test_what_is_not_there_is_said_to_be(model_id, error):
    with pytest.raises(error, match=r"no such|neither a path"):
        locate_model(model_id)


def test_a_folder_that_is_no_model_and_a_file_that_is_none(tmp_path):
    (tmp_path / "notes.txt").write_text("x")

    with pytest.raises(NotAModelError, match=r"no config\.json"):
        locate_model(str(tmp_path))
    with pytest.raises(NotAModelError, match=r"isn't a \.gguf"):
        locate_model(str(tmp_path / "notes.txt"))


def test_pickled_weights_are_not_read(copy):
    for path in copy.glob("*.safetensors*"):
        path.unlink()
    (copy / "pytorch_model.bin").write_bytes(b"x")

    with pytest.raises(UnsupportedModelError, match="pickle"):
        locate_model(str(copy))


def test_a_missing_shard_is_named(copy):
    shard = sorted(copy.glob("model-*.safetensors"))[1]
    shard.unlink()

    with pytest.raises(CorruptModelError, match=shard.name):
        locate_model(str(copy))


def test_a_missing_and_a_misshapen_tensor_are_named(copy):
    index = copy / "model.safetensors.index.json"
    change_config(copy, num_hidden_layers=4)

    with pytest.raises(CorruptModelError, match=r"layers\.3\..*missing"):
        locate_model(str(copy))
    change_config(copy, num_hidden_layers=3, intermediate_size=95)
    with pytest.raises(CorruptModelError, match=r"mlp\..*\[9\d, 64\].*config says"):
        locate_model(str(copy))
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(CorruptModelError, match="files beside it"):
        locate_model(str(copy))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, UnsupportedModelError, "GPT2LMHeadModel.*Llama"),
        ({"architectures": None}, CorruptModelError, "architectures"),
        ({"hidden_size": "64"}, CorruptModelError, "'hidden_size' must be an integer from 1"),
        ({"hidden_size": 10**9}, CorruptModelError, "hidden_size"),
        ({"num_attention_heads": 0}, CorruptModelError, "num_attention_heads"),
        ({"num_key_value_heads": 3}, CorruptModelError, "divisor of 4"),
        ({"hidden_act": "gelu"}, UnsupportedModelError, "gelu"),
        ({"quantization_config": {"quant_method": "hqq"}}, UnsupportedModelError, "'hqq'"),
        ({"rope_parameters": {"rope_type": "longrope"}}, UnsupportedModelError, "longrope"),
        ({"rms_norm_eps": -1}, CorruptModelError, "rms_norm_eps"),
        ({"dtype": "float8"}, UnsupportedModelError, "float8"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused_by_key(change, error, reason, copy):
    change_config(copy, **change)

    with pytest.raises(error, match=reason):
        locate_model(str(copy))


def test_nothing_that_names_code_is_looked_at(copy):
    change_config(
        copy, auto_map={"AutoModelForCausalLM": "evil.Model"}, _attn_implementation_internal="x/y"
    )
    (copy / "evil.py").write_text("raise SystemExit('ran')")

    assert locate_model(str(copy)).config.family == "llama"


def test_a_folder_of_weights_must_exist(tiny):
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        locate_model(str(tiny), weights_folder="no-such-folder")


def test_weights_of_a_gguf_file_cannot_come_from_elsewhere(tmp_path):
    with pytest.raises(UnsupportedModelError, match="one GGUF file"):
        locate_model("demo", weights_folder=str(tmp_path))


def test_another_tokenizer_config_can_be_given_for_a_gguf_file(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"chat_template": "other", "model_max_length": 77}))

    plain = locate_model("demo").text
    text = locate_model("demo", tokenizer_config_path=str(path)).text

    assert text.chat_templates == {"default": "other"}
    assert text.model_max_length == 77
    assert (text.bos_token, text.eos_token) == (plain.bos_token, plain.eos_token)


def test_a_tokenizer_config_that_is_given_must_exist():
    with pytest.raises(ModelNotFoundError, match="no such file"):
        locate_model("demo", tokenizer_config_path="no-such-file.json")
