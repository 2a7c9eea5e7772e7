"""What was asked for: the options of `tgi serve`, before anything is derived from them.

`None` means that nobody said, so that `resolve.py` decides. `settings/` is the table of flags
and variables that fill these fields; defaults stand here alone. Spec: launcher-options.md 2 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tgi_cli.runtime.config.model_config import Dtype, KvCacheDtype

Quantize = Literal[
    "gguf",  # ours; the others are TGI's
    "awq",
    "bitsandbytes",
    "bitsandbytes-fp4",
    "bitsandbytes-nf4",
    "compressed-tensors",
    "eetq",
    "exl2",
    "fp8",
    "gptq",
    "marlin",
]
Attention = Literal[  # "triton" and "flash-attn" are ours for "paged" and "flashdecoding"
    "paged", "triton", "flashinfer", "flashdecoding", "flash-attn", "flashdecoding-ipex"
]

DEMO_MODEL = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Everything that the command line and the environment can say about a server."""

    # Model
    model_id: str = DEMO_MODEL  # hub id, folder of safetensors, .gguf file, or "demo"
    revision: str | None = None
    dtype: Dtype | None = None
    quantize: Quantize | None = None
    kv_cache_dtype: KvCacheDtype | None = None
    trust_remote_code: bool = False
    speculate: int | None = None  # tokens
    lora_adapters: tuple[str, ...] = ()  # id, id@revision, id=path or id=path@revision
    rope_scaling: Literal["linear", "dynamic"] | None = None
    rope_factor: float | None = None
    tokenizer_config_path: str | None = None
    disable_grammar_support: bool = False
    enable_prefill_logprobs: bool = False  # accepted; requests may always ask for them
    watermark_gamma: float = 0.5  # share of the vocabulary
    watermark_delta: float = 2.0  # added to a score
    huggingface_hub_cache: str | None = None
    weights_cache_override: str | None = None
    disable_custom_kernels: bool = False
    cuda_memory_fraction: float = 1.0  # of a GPU's memory, or of what a CPU has available
    cuda_graphs: tuple[int, ...] | None = None  # batch sizes

    # Limits per request, inclusive
    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_input_tokens: int | None = None
    max_input_length: int | None = None  # the deprecated name of `max_input_tokens`
    max_total_tokens: int | None = None
    strict_lengths: bool = False
    max_client_batch_size: int = 4  # prompts in one call
    payload_limit: int = 2_000_000  # bytes
    max_image_fetch_size: int = 1 << 30  # bytes

    # Batching
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    waiting_served_ratio: float = 0.3
    max_waiting_tokens: int = 20  # decode steps
    max_batch_size: int | None = None  # requests
    validation_workers: int = 2

    # Devices
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Attention | None = None
    sharded: bool | None = None
    num_shard: int | None = None
    cpu_threads: int | None = None
    verify_determinism: bool = False
    engine: Literal["native", "fake"] = "native"
    shard_uds_path: str | None = None
    master_shard_uds_path: str | None = None
    master_addr: str | None = None
    master_port: int | None = None

    # Network and operation
    hostname: str = "0.0.0.0"
    port: int = 3000
    prometheus_port: int = 9000  # 0: on the main port only
    api_key: str | None = None
    api_key_file: str | None = None
    protect_chat_tokenize: bool = False
    cors_allow_origin: tuple[str, ...] = ()  # empty: any
    openai_strict: bool = False
    graceful_termination_timeout: int = 90  # seconds
    stall_timeout: int = 60  # seconds
    json_output: bool = False
    log_level: str = "info"  # or a filter, as logs.parse_filter reads it
    otlp_endpoint: str | None = None
    otlp_service_name: str = "text-generation-inference.router"
    env: bool = False  # log the runtime report
    usage_stats: Literal["on", "off", "no-stack"] = "on"  # accepted; nothing is ever sent
    disable_usage_stats: bool = False
    disable_crash_reports: bool = False
    messages_api_enabled: bool = False
    ngrok: bool = False
    ngrok_authtoken: str | None = None
    ngrok_edge: str | None = None

    # Environment only
    hf_token: str | None = None
    prefix_caching: bool = True
    prefill_chunking: bool = True
    use_flash_attention: bool = True
    log_format: Literal["text", "json"] = "text"
    log_colorize: bool = True
    tgi_wiggle_room: float = 0.9  # share of the free memory that the KV cache may take
    compute_type: str | None = None
    docker_label: str | None = None
    build_sha: str | None = None
    cuda_visible_devices: str | None = None
    nvidia_visible_devices: str | None = None
    ze_affinity_mask: str | None = None
    aip_http_port: int | None = None
    aip_predict_route: str | None = None
    aip_health_route: str | None = None
