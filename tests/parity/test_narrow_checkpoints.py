"""Checkpoints of 8 bits, or 4 with a table, compute what plain ones of the same numbers do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.model import make_runner, prompt_logits
from tests.builders.narrow import NARROW, write_loaded, write_narrow
from tests.parity.test_quantized_checkpoints import (
    PROMPT,
    assert_alike,
    assert_as_planned,
    config_of,
    logits_of,
    needs_native,
)
from tgi_cli.kernels import native
from tgi_cli.runtime.config.quantization import OnLoad
from tgi_cli.runtime.config.quantization.on_load import Method
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.determinism import Determinism


def quantised_on_load(folder: Path, method: Method) -> EngineConfig:
    config = config_of(folder)
    weights = msgspec.structs.replace(config.weights, quantization=OnLoad(method=method))
    return msgspec.structs.replace(config, weights=weights)


@needs_native
@pytest.mark.parametrize("name", NARROW)
def test_a_format_computes_what_its_plain_twin_does(name: str, tmp_path: Path) -> None:
    assert_alike(write_narrow(tmp_path, NARROW[name]))


@needs_native
@pytest.mark.parametrize("name", ["fp8", "fbgemm", "int-quantized", "bitsandbytes", "nf4"])
def test_a_quantised_head_is_served_whatever_the_lists_say(name: str, tmp_path: Path) -> None:
    parts = ("_proj", "lm_head")

    assert_alike(write_narrow(tmp_path, NARROW[name], quantized=parts, vocab_size=320))


@needs_native
@pytest.mark.parametrize("name", ["fp8-blocks", "int-quantized-asym", "nf4"])
def test_heads_may_be_wider_than_the_hidden_size(name: str, tmp_path: Path) -> None:
    assert_alike(write_narrow(tmp_path, NARROW[name], head_dim=64))


@needs_native
@pytest.mark.parametrize("name", ["fp8", "nf4"])
def test_biases_and_a_tied_head_stay_plain(name: str, tmp_path: Path) -> None:
    assert_alike(write_narrow(tmp_path, NARROW[name], family="qwen2", tie_word_embeddings=True))


def test_blocks_that_run_over_the_ends_of_rows_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packed, _ = write_narrow(tmp_path, NARROW["nf4-blocks-over-rows"])

    make_runner(config_of(packed))

    assert "event=dequantised projections=2:" in caplog.text  # down, of two layers


@needs_native
@pytest.mark.parametrize("name", ["nf4", "nf4-blocks-over-rows"])
def test_four_bits_take_the_memory_that_was_planned(name: str, tmp_path: Path) -> None:
    packed, _ = write_narrow(tmp_path, NARROW[name], vocab_size=320, dtype=torch.float16)

    assert_as_planned(packed)


@needs_native
@pytest.mark.parametrize("method", OnLoad.methods)
def test_quantising_while_loading_touches_projections_only(method: Method, tmp_path: Path) -> None:
    source, twin = write_loaded(tmp_path, method)

    logits = prompt_logits(quantised_on_load(source, method), PROMPT, 16)

    expected = logits_of(twin)
    assert (logits - expected).norm() / expected.norm() < 1e-3
    assert not torch.equal(logits, logits_of(source))


@needs_native
@pytest.mark.parametrize("method", ["eetq", "fp8", "bitsandbytes-nf4"])
def test_rows_dont_depend_on_their_company(method: Method, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, hidden_size=128, head_dim=32)
    config = quantised_on_load(tmp_path, method)

    Determinism(make_runner(config), config, num_requests=5).verify()


@pytest.mark.parametrize("name", ["fp8-blocks", "nf4"])
def test_torch_computes_what_the_kernels_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, plain = write_narrow(tmp_path, NARROW[name])
    expected = logits_of(plain)
    monkeypatch.setattr(native, "is_available", lambda: False)

    logits = logits_of(packed)

    assert (logits - expected).norm() / expected.norm() < 1e-5
