"""What was asked for: the options of `tgi serve`, before anything is derived from them.

`None` means that nobody said, so that `resolve.py` decides. `env.py` is the table of flags and
variables that fill these fields; defaults stand here alone. Spec: launcher-options.md section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tgi_cli.runtime.config.model_config import Dtype

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
KvCacheDtype = Literal["float16", "bfloat16", "float32", "fp8_e4m3fn", "fp8_e5m2"]

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
    tokenizer_config_path: str | None = None
    huggingface_hub_cache: str | None = None

    # Limits per request, inclusive
    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_input_tokens: int | None = None
    max_input_length: int | None = None  # the deprecated name of `max_input_tokens`
    max_total_tokens: int | None = None
    max_client_batch_size: int = 4  # prompts in one call
    payload_limit: int = 2_000_000  # bytes

    # Batching
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_batch_size: int | None = None  # requests
    validation_workers: int = 2

    # Devices
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sharded: bool | None = None
    num_shard: int | None = None
    cpu_threads: int | None = None
    verify_determinism: bool = False
    engine: Literal["native", "fake"] = "native"

    # Network and operation
    hostname: str = "0.0.0.0"
    port: int = 3000
    api_key: str | None = None
    cors_allow_origin: tuple[str, ...] = ()  # empty: any
    graceful_termination_timeout: int = 90  # seconds
    json_output: bool = False
    usage_stats: Literal["on", "off", "no-stack"] = "on"  # accepted; nothing is ever sent

    # Environment only
    log_level: Literal["error", "warn", "info", "debug"] = "info"
    log_colorize: bool = True
    tgi_wiggle_room: float = 0.9  # share of the free memory that the KV cache may take
