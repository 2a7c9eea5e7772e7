"""What an engine on a GPU is made of."""

from __future__ import annotations

from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.gpu_runner import GpuRunner
from tgi_cli.runtime.engine.load_gpu import Parts
from tgi_cli.runtime.engine.sampling.gpu_sampler import GpuSampler
from tgi_cli.runtime.engine.sampling.launched import LaunchingSampler, MixedSampler
from tgi_cli.runtime.engine.sampling.sampler import Sampler, SamplerConfig
from tgi_cli.runtime.engine.staging import Staging
from tgi_cli.runtime.layers.attention import AttentionBackend, flash_attn, flashinfer, triton_paged
from tgi_cli.runtime.layers.placement import on_gpu
from tgi_cli.runtime.models.base import Model
from tgi_cli.runtime.models.loader import load_model
from tgi_cli.runtime.models.weights import TORCH_DTYPES
from tgi_cli.runtime.platforms.gpu import Gpu

_BACKENDS = {"paged": triton_paged, "flash-attn": flash_attn, "flashinfer": flashinfer}


def make_attention(config: EngineConfig, gpu: Gpu, staging: Staging) -> AttentionBackend:
    """Return the backend that was asked for.

    Raises:
        MissingExtraError: its package isn't installed, or is of another version.
        UnsupportedModelError: it can't do this model.
    """
    model = config.model
    dtype, kv_dtype = TORCH_DTYPES[config.dtype], TORCH_DTYPES[config.kv_cache_dtype]
    reason = _BACKENDS[config.attention].unsupported(model.head_dim, dtype, kv_dtype)
    if reason is not None:
        raise UnsupportedModelError(
            f"`attention` is {config.attention}: {reason}.",
            hint="Leave --attention out, or give --device cpu.",
        )
    if config.attention == "flash-attn":
        return flash_attn.FlashAttnAttention(staging, gpu.device)
    if config.attention == "flashinfer":
        return flashinfer.FlashInferAttention(gpu.device)
    return triton_paged.TritonPagedAttention(
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        kv_cache_dtype=kv_dtype,
        max_context=config.max_total_tokens,
        device=gpu.device,
        uploader=staging,
    )


def _load_model(config: EngineConfig, gpu: Gpu, attention: AttentionBackend) -> Model:
    placement = on_gpu(gpu.device, TORCH_DTYPES[config.dtype])
    return load_model(config.model, config.weights, config.dtype, attention, placement)


def _make_sampler(
    config: EngineConfig, gpu: Gpu, runner: GpuRunner, staging: Staging
) -> LaunchingSampler:
    sampling = SamplerConfig.of(config)
    on_device = GpuSampler(sampling, gpu, staging, max_running=config.max_running)
    on_device.warm_up()
    return MixedSampler(gpu, on_device, Sampler(sampling))


PARTS = Parts(attention=make_attention, model=_load_model, sampler=_make_sampler)
