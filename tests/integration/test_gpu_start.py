"""A start that chooses a GPU, on a machine whose torch can't use it: the reason comes back."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.builders.serving import GIB, gpu_stack, hardware
from tgi_cli.errors import StartError
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolved import ResolvedConfig
from tgi_cli.runtime.serving.launch import _Launch


class NoScreen:
    def decided(self, config: ResolvedConfig) -> None:
        assert config.engine.device == "cuda"

    def listening(self, url: str, *, needs_key: bool) -> None:
        raise AssertionError("it can't listen")


def test_a_gpu_that_the_engine_cannot_use_ends_the_start_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    machine = hardware(memory_bytes=4 * GIB, gpus=gpu_stack())
    launch = _Launch(ServeOptions(cpu_threads=1), machine, NoScreen())

    with pytest.raises(StartError, match="The GPU can't be used, though its driver shows it"):
        asyncio.run(launch.run())

    assert "Using device cuda: NVIDIA H100 80GB HBM3, 80.00 GiB" in caplog.messages
    assert "Using attention paged - Prefix caching true" in caplog.messages
    [graphs] = [text for text in caplog.messages if text.startswith("Using default cuda graphs")]
    assert graphs.startswith("Using default cuda graphs [1, 2, 4, 8, 16, ")
