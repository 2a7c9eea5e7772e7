"""Which files are chosen from a listing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.download import INDEX
from tgi_cli.errors import (
    ConversionError,
    ModelNotFoundError,
    NotAModelError,
    StartError,
    UsageError,
    VerificationError,
)
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.choice import PYTORCH_INDEX, Choice, choose_files
from tgi_cli.runtime.hub.download.listing import Listing, RemoteFile

SMALL = ["config.json", "tokenizer.json"]
GGUFS = ["tiny.Q4_K_M.gguf", "tiny.Q4_K_S.gguf", "tiny-Q8_0.gguf"]
SPLIT = ["big/q6_k-00002-of-00002.gguf", "big/q6_k-00001-of-00002.gguf"]


def listing(*names: str) -> Listing:
    files = tuple(RemoteFile(name, 7, "0" * 40) for name in names)
    return Listing("somebody/tiny", "main", "0" * 40, None, files)


def choose(
    *names: str, quantization: str | None = None, shards: tuple[str, ...] = (), **options: Any
) -> Choice:
    index = json.dumps({"weight_map": {f"w{n}": name for n, name in enumerate(shards)}})
    return choose_files(
        listing(*names),
        DownloadOptions(model_id="somebody/tiny", **options),
        quantization,
        lambda _: index,
    )


def names_of(choice: Choice) -> set[str]:
    return {file.name for file in choice.files}


@pytest.mark.parametrize(
    ("there", "weights"),
    [
        (["model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"], 1),
        (["model.safetensors", "pytorch_model.bin", "tiny.gguf"], 1),
        (["a.safetensors", "b.safetensors"], 2),
        (["pytorch_model.bin", "model.pt", "training_args.bin", "optimizer.bin"], 1),
        (["consolidated.00.pth", "consolidated.01.pth"], 2),
        (["model.pt"], 1),
        (["adapter_model.safetensors"], 1),
    ],
)
def test_the_best_kind_of_weights_is_taken_alone(there: list[str], weights: int) -> None:
    choice = choose(*SMALL, *there)

    assert names_of(choice) == {*SMALL, *there[:weights]}
    assert choice.gguf_file is None


@pytest.mark.parametrize(("index", "ending"), [(INDEX, ".safetensors"), (PYTORCH_INDEX, ".bin")])
def test_an_index_says_which_files_are_the_weights(index: str, ending: str) -> None:
    shards = (f"model-00001-of-00002{ending}", f"model-00002-of-00002{ending}")

    choice = choose(*SMALL, index, *shards, f"model-00001-of-00001{ending}", shards=shards)

    assert names_of(choice) == {*SMALL, index, *shards}


def test_shards_that_an_index_lists_and_nobody_uploaded_are_named() -> None:
    with pytest.raises(VerificationError, match=r"2 files and 1 of them.*'b\.safetensors'"):
        choose(*SMALL, INDEX, "a.safetensors", shards=("a.safetensors", "b.safetensors"))


def test_pickled_shards_that_nobody_uploaded_are_named() -> None:
    with pytest.raises(ConversionError, match="00002-of-00002"):
        choose(*SMALL, "pytorch_model-00001-of-00002.bin")


def test_copies_for_other_programs_are_left_out() -> None:
    others = [
        "README.md",
        "flax_model.msgpack",
        "tf_model.h5",
        "model.onnx",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "original/params.json",
        "runs/events.out",
        ".gitattributes",
    ]

    assert names_of(choose(*SMALL, "model.safetensors", *others)) == {*SMALL, "model.safetensors"}


def test_chat_templates_are_small_files_in_a_folder_of_their_own() -> None:
    templates = ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"]

    choice = choose(*SMALL, *templates, "other/chat_template.jinja", has_weights=False)

    assert names_of(choice) == {*SMALL, *templates}


@pytest.mark.parametrize(("is_trusted", "extra"), [(False, set()), (True, {"modeling_tiny.py"})])
def test_code_is_fetched_only_when_it_is_trusted(is_trusted: bool, extra: set[str]) -> None:
    names = [*SMALL, "model.safetensors", "modeling_tiny.py", "scripts/train.py"]

    choice = choose(*names, trust_remote_code=is_trusted)

    assert names_of(choice) == {*SMALL, "model.safetensors"} | extra


def test_globs_take_the_place_of_the_smart_set_or_take_from_it() -> None:
    names = [*SMALL, "model.safetensors", "onnx/model.onnx", "onnx/config.json"]

    assert names_of(choose(*names, includes=("onnx/*",), excludes=("*.json",))) == {
        "onnx/model.onnx"
    }
    assert names_of(choose(*names, excludes=("tokenizer*",))) == {"config.json", names[2]}


def test_globs_that_match_nothing_are_a_mistake() -> None:
    with pytest.raises(ModelNotFoundError, match=r"no file matches \*\.bin"):
        choose(*SMALL, includes=("*.bin",))


@pytest.mark.parametrize(
    ("extension", "expected"),
    [(".safetensors", "model.safetensors"), (".bin", "pytorch_model.bin"), (".pt", "model.pt")],
)
def test_an_extension_is_a_demand(extension: str, expected: str) -> None:
    there = ["model.safetensors", "pytorch_model.bin", "model.pt", "tiny.gguf"]

    assert names_of(choose(*SMALL, *there, extension=extension)) == {*SMALL, expected}
    with pytest.raises(NotAModelError, match=f"no {extension} file"):
        choose(*SMALL, extension=extension)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("Q4_K_M", {GGUFS[0]}),
        ("q4_k_s", {GGUFS[1]}),
        ("Q8_0", {GGUFS[2]}),
        ("Q6_K", {*SPLIT}),
    ],
)
def test_a_quantisation_picks_its_file_or_its_parts(quantization: str, expected: set[str]) -> None:
    choice = choose(*SMALL, "model.safetensors", *GGUFS, *SPLIT, quantization=quantization)

    assert names_of(choice) == expected
    assert choice.gguf_file == min(expected)


def test_a_name_picks_a_file_or_its_parts() -> None:
    assert names_of(choose(*GGUFS, *SPLIT, gguf_file=GGUFS[2])) == {GGUFS[2]}
    assert names_of(choose(*GGUFS, *SPLIT, gguf_file=SPLIT[0])) == {*SPLIT}


def test_a_single_gguf_file_needs_no_name() -> None:
    choice = choose("tiny.gguf", "mmproj-tiny.gguf", "config.json")

    assert names_of(choice) == {"tiny.gguf"}


@pytest.mark.parametrize(
    ("quantization", "error", "listed"),
    [
        (None, UsageError, [*GGUFS, SPLIT[1]]),
        ("Q4", UsageError, GGUFS[:2]),
        ("Q5_0", ModelNotFoundError, [*GGUFS, SPLIT[1]]),
    ],
)
def test_candidates_are_listed_and_none_is_picked(
    quantization: str | None, error: type[StartError], listed: list[str]
) -> None:
    with pytest.raises(error) as failure:
        choose(*GGUFS, *SPLIT, quantization=quantization)

    hint = str(failure.value.hint)
    assert [name for name in (*GGUFS, SPLIT[1]) if name in hint] == listed


def test_two_files_of_one_quantisation_are_ambiguous() -> None:
    with pytest.raises(UsageError, match="2 GGUF files would do") as failure:
        choose("a-Q8_0.gguf", "b-Q8_0.gguf", "c-Q4_0.gguf", quantization="Q8_0")

    assert failure.value.exit_code == 2
    assert "c-Q4_0" not in str(failure.value.hint)


def test_a_gguf_model_with_a_part_missing_is_refused() -> None:
    with pytest.raises(VerificationError, match="2 parts, and the repository has 1"):
        choose(SPLIT[1])


@given(
    st.lists(
        st.from_regex(
            r"[a-z]{1,3}(-[0-9]{5}-of-0000[1-3])?\.(safetensors|bin|gguf|pt)", fullmatch=True
        )
        | st.sampled_from([*SMALL, *GGUFS, *SPLIT, INDEX, "onnx/m.onnx", "training_args.bin"]),
        unique=True,
        max_size=9,
    ),
    st.sampled_from([None, "Q4_K_M", "q8_0"]),
)
def test_any_listing_gives_files_of_it_with_one_kind_of_weights_or_a_sentence(
    names: list[str], quantization: str | None
) -> None:
    shards = tuple(name for name in names if name.endswith(".safetensors")) or ("x.safetensors",)
    try:
        choice = choose(*names, quantization=quantization, shards=shards)
    except StartError:
        return

    chosen = names_of(choice)
    endings = {name.rpartition(".")[2] for name in chosen}
    assert chosen <= set(names)
    assert len(endings & {"safetensors", "gguf"} or {""}) == 1
    assert "training_args.bin" not in chosen
