"""What an engine on a GPU is made of, and what its parts can't do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders.engine import TINY_MODEL
from tests.builders.fake_gpu import FakeGpu
from tests.builders.gpu_model import gpu_config
from tests.builders.serving import gpu_model
from tgi_cli.errors import MissingExtraError, UnsupportedModelError
from tgi_cli.runtime.config.device import gpu_dtype, model_obstacles
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.engine.gpu_parts import make_attention
from tgi_cli.runtime.engine.staging import Staging
from tgi_cli.runtime.layers.attention import triton_paged
from tgi_cli.runtime.models.weights import TORCH_DTYPES

DTYPES: list[Any] = ["float16", "bfloat16"]
CACHES: list[Any] = [None, "float16", "bfloat16", "float32", "fp8_e4m3fn", "fp8_e5m2"]


@pytest.mark.parametrize("head_dim", [6, 16, 24, 80, 96, 256, 272])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_cache_dtype", CACHES)
def test_what_the_start_refuses_is_what_the_kernels_refuse(
    head_dim: int, dtype: Any, kv_cache_dtype: Any
) -> None:
    options = ServeOptions(dtype=dtype, kv_cache_dtype=kv_cache_dtype)
    config = gpu_model(head_dim=head_dim).config

    obstacles = list(model_obstacles(options, config))

    own = gpu_dtype(options, config)
    reason = triton_paged.unsupported(
        head_dim, TORCH_DTYPES[own], TORCH_DTYPES[kv_cache_dtype or own]
    )
    assert bool(obstacles) == (reason is not None), (obstacles, reason)


@pytest.mark.parametrize(
    ("attention", "block_size"), [("flash-attn", 256), ("flashinfer", 32), ("paged", 32)]
)
def test_a_model_that_attention_cannot_do_is_refused(attention: str, block_size: int) -> None:
    config = gpu_config(
        attention=attention, dtype="float16", kv_cache_dtype="fp8_e5m2", block_size=block_size
    )
    gpu = FakeGpu()

    with pytest.raises(UnsupportedModelError, match=f"^`attention` is {attention}: ") as caught:
        make_attention(config, gpu, Staging(gpu))  # heads of 4

    assert "--attention" in (caught.value.hint or "")


@pytest.mark.parametrize("attention", ["flash-attn", "flashinfer"])
def test_a_library_that_is_not_installed_is_named(attention: str) -> None:
    model = msgspec.structs.replace(TINY_MODEL, head_dim=64)
    config = gpu_config(attention=attention, dtype="float16", kv_cache_dtype="float16", model=model)
    gpu = FakeGpu()

    with pytest.raises(MissingExtraError, match="isn't installed"):
        make_attention(config, gpu, Staging(gpu))
