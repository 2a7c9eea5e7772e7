"""Limits are decided again when an engine has found less memory than was bound."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.builders.serving import gpu_model, gpu_stack, hardware
from tgi_cli.errors import CapacityError
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolve import resolve
from tgi_cli.runtime.config.resolved import ResolvedConfig
from tgi_cli.runtime.ipc.messages import EngineReady
from tgi_cli.runtime.serving.launch import _Launch

READY = EngineReady(num_blocks=7, block_size=32, weights_bytes=0, load_s=0.0, kernels="triton")


def complete(**asked: Any) -> ResolvedConfig:
    """Decide for an H100, and again with what the engine has measured."""
    options, machine, model = ServeOptions(**asked), hardware(gpus=gpu_stack()), gpu_model()
    launch = _Launch(options, machine, screen=None)  # type: ignore[arg-type]
    return launch._complete(resolve(options, model, machine), model, READY)  # type: ignore[arg-type]


def test_the_router_and_the_log_have_what_was_measured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    config = complete(max_batch_total_tokens=300)

    assert config.router.max_batch_total_tokens == 224
    assert config.router.limits.max_total_tokens == 224
    assert caplog.messages == [
        "`max_batch_total_tokens` is 300 but 224 fit the memory; 224 is used",
        "Maximum input tokens defaulted to 223",
        "Maximum total tokens defaulted to 224",
        "Setting max batch total tokens to 224",
        "KV-cache blocks: 7, size: 32",
    ]


def test_a_request_length_that_was_asked_for_and_no_longer_fits_ends_the_start() -> None:
    with pytest.raises(CapacityError, match="Not enough memory to handle `max_total_tokens=225`"):
        complete(max_total_tokens=225)
