"""What was decided: the frozen configuration that each process is given.

`resolve.py` makes these from the options, the model and the machine. Below this level nothing reads
the environment and nothing is decided again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tgi_cli.runtime.config.model_config import Dtype, KvCacheDtype, ModelConfig, WeightsSource

AttentionName = Literal["paged", "flash-attn", "flashinfer"]


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: str = "info"  # or a filter with levels of targets
    json: bool = False
    colour: bool = True  # on a terminal


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that an engine process needs to load the model and run steps."""

    model: ModelConfig
    weights: WeightsSource
    eos_token_ids: tuple[int, ...]
    device: Literal["cpu", "cuda"]
    dtype: Dtype  # the weights are rounded to this
    kv_cache_dtype: KvCacheDtype
    attention: AttentionName = "paged"
    custom_kernels: bool = True  # false: torch's operations in place of the native kernels
    block_size: int  # tokens
    num_blocks: int  # on a GPU at most: how many fit is known once the model has run
    memory_fraction: float = 1.0  # of a GPU's memory, for everything
    wiggle_room: float = 0.9  # share of what is then left that the KV cache may take
    cuda_graphs: tuple[int, ...] = ()  # sequences in a decode step that is captured, ascending
    max_step_tokens: int  # prefill and decode together, one forward pass
    max_running: int  # sequences in one batch
    max_total_tokens: int  # prompt and output of one request
    num_threads: int
    verify_determinism: bool = False
    prefix_caching: bool = True
    prefill_chunking: bool = True  # false: a prompt is computed in one step of its own
    waiting_served_ratio: float = 0.3  # these two govern admission without chunking
    max_waiting_tokens: int = 20  # decode steps
    watermark_gamma: float = 0.5  # share of the vocabulary that is on the green list
    watermark_delta: float = 2.0  # added to its scores
    tokenizer_json: str = ""  # for grammars, which are about bytes; "": no grammar support
    log: LogConfig = LogConfig()


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inclusive bounds of one request, in the words of spec/launcher-options.md section 2.2."""

    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_input_tokens: int = 1024
    max_total_tokens: int = 2048
    max_client_batch_size: int = 4
    payload_limit_bytes: int = 2_000_000
    strict_lengths: bool = False  # refuse all of max_new_tokens that can't fit, as TGI 2 did


class RouterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the HTTP side needs."""

    model_id: str
    model_sha: str | None = None
    model_pipeline_tag: str | None = None
    model_dtype: str = "torch.float32"  # this and the next three are for /info only
    model_device_type: str = "cpu"
    waiting_served_ratio: float = 0.3
    max_waiting_tokens: int = 20
    limits: RequestLimits = RequestLimits()
    hostname: str = "0.0.0.0"
    port: int = 3000
    api_key: str | None = None
    api_key_file: str | None = None  # more keys, one on a line; read again when it changes
    protects_chat_tokenize: bool = False  # with a key; TGI leaves that route open
    cors_allow_origin: tuple[str, ...] = ()  # empty: any
    validation_workers: int = 2
    graceful_termination_timeout_s: float = 90.0
    stall_timeout_s: float = 60.0  # an engine with work that is silent for longer is stalled
    compute_type: str = "gpu+optimized"  # header x-compute-type
    docker_label: str | None = None
    build_sha: str | None = None
    vertex_predict_route: str | None = None  # AIP_PREDICT_ROUTE
    vertex_health_route: str | None = None  # AIP_HEALTH_ROUTE
    prometheus_port: int | None = None  # /metrics there too; None: on the main port only
    openai_strict: bool = False  # OpenAI's words and statuses where TGI's differ
    supports_grammars: bool = True
    adapter_ids: tuple[str, ...] = ()  # none can be served yet
    otlp_endpoint: str | None = None
    otlp_service_name: str = "text-generation-inference.router"
    watermark_gamma: float = 0.5
    watermark_delta: float = 2.0
    max_batch_total_tokens: int = 0
    max_batch_prefill_tokens: int = 4096
    max_batch_size: int | None = None
    log: LogConfig = LogConfig()

    @property
    def needs_key(self) -> bool:
        return self.api_key is not None or self.api_key_file is not None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the start table: a value and why it is that."""

    name: str
    value: str
    reason: str


class ResolvedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole server, decided."""

    router: RouterConfig
    engine: EngineConfig
    decisions: tuple[Decision, ...]
    warnings: tuple[str, ...] = ()
