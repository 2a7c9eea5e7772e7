"""From what was asked to what is decided: one pure function of options, model and machine.

Every value gets a `Decision` with its reason, for the start table. Tokens unless a name says
otherwise. Spec: launcher-options.md sections 3, 4.2 and 4.3; scheduling.md section 15.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tgi_cli.errors import ArgumentError, CapacityError, UnsupportedModelError
from tgi_cli.runtime.config.check_options import (
    asked_input_tokens,
    check_options,
    check_within_batch,
    warnings_of,
)
from tgi_cli.runtime.config.model_config import Dtype, ModelConfig, TextAssets, WeightsSource
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.parsers import is_ip_address
from tgi_cli.runtime.config.resolved import (
    Decision,
    EngineConfig,
    LogConfig,
    RequestLimits,
    ResolvedConfig,
    RouterConfig,
)

BLOCK_SIZE = 32  # tokens; the CPU kernels know no other
_BYTES: dict[Dtype, int] = {"float16": 2, "bfloat16": 2, "float32": 4}
_USABLE_SHARE = 0.95  # of the memory that the system calls available
_BASE_PREFILL_TOKENS = 4096
_CPU_STEP_TOKENS = 512  # a matrix product on a CPU is at its peak with this many rows
_ANY_ADDRESS = "0.0.0.0"


class ModelFacts(Protocol):
    """What must be known of a model; `hub.locate.LocatedModel` is one."""

    @property
    def model_id(self) -> str: ...
    @property
    def sha(self) -> str | None: ...
    @property
    def pipeline_tag(self) -> str | None: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def weights(self) -> WeightsSource: ...
    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...
    @property
    def text(self) -> TextAssets: ...


@dataclass(frozen=True, slots=True)
class HardwareFacts:
    """What this process may use of the machine."""

    num_cores: int
    available_memory_bytes: int
    num_gpus: int = 0  # that the driver shows
    has_native_kernels: bool = True


@dataclass(frozen=True, slots=True)
class _Limits:
    max_input_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    max_batch_total_tokens: int
    num_blocks: int
    max_running: int  # sequences


def log_config(options: ServeOptions) -> LogConfig:
    return LogConfig(level=options.log_level, json=options.json_output, colour=options.log_colorize)


def resolve(options: ServeOptions, model: ModelFacts, hardware: HardwareFacts) -> ResolvedConfig:
    """Decide everything.

    Raises:
        ArgumentError: options that contradict each other or the model.
        CapacityError: the model, or one request of the length asked for, doesn't fit the memory.
        UnsupportedModelError: a length at which this model can't be run.
    """
    check_options(options, hardware.num_gpus)
    return _Resolver(options, model, hardware).resolve()


class _Resolver:
    def __init__(self, options: ServeOptions, model: ModelFacts, hardware: HardwareFacts) -> None:
        self._options = options
        self._model = model
        self._hardware = hardware
        self._decisions: list[Decision] = []
        self._warnings = list(warnings_of(options, hardware.num_gpus))

    def resolve(self) -> ResolvedConfig:
        self._describe_model()
        limits = self._limits()
        return ResolvedConfig(
            router=self._router_config(limits),
            engine=self._engine_config(limits),
            decisions=tuple(self._decisions),
            warnings=tuple(self._warnings),
        )

    def _decide(self, name: str, value: object, reason: str) -> None:
        self._decisions.append(Decision(name=name, value=str(value), reason=reason))

    def _describe_model(self) -> None:
        model, options = self._model, self._options
        self._decide("model", model.model_id, f"{model.config.family} family")
        revision = model.sha or options.revision or "none"
        self._decide("revision", revision, "commit on the hub" if model.sha else "local files")
        asked = "asked for" if options.dtype else "the checkpoint's own"
        self._decide("dtype", self._dtype, f"{asked}; computed in float32")
        if options.quantize == "gguf" and model.weights.kind != "gguf":
            raise ArgumentError(
                f"`quantize` is gguf, but {model.model_id} isn't a GGUF file; leave --quantize out"
            )
        if options.quantize:
            self._decide(
                "quantize", options.quantize, "asked for; Q4_0, Q4_1 and Q8_0 stay as they are"
            )
        self._decide(
            "kv_cache_dtype",
            self._kv_cache_dtype,
            "asked for" if options.kv_cache_dtype else "as the weights",
        )
        self._decide("device", "cpu", "this version computes on the CPU only")
        self._decide(
            "weights",
            _show_bytes(model.weights.num_bytes),
            f"{model.weights.num_parameters:,} parameters as {model.weights.kind}; "
            f"{_show_bytes(self._weights_bytes)} in memory",
        )

    @property
    def _dtype(self) -> Dtype:
        return self._options.dtype or self._model.config.checkpoint_dtype

    @property
    def _kv_cache_dtype(self) -> Dtype:
        asked = self._options.kv_cache_dtype
        if asked is None:
            return self._dtype
        assert asked in _BYTES, asked  # `check_options` has refused the others
        return asked

    # Memory

    @property
    def _weights_bytes(self) -> int:
        config = self._model.config
        if self._options.quantize == "gguf" and self._hardware.has_native_kernels:
            embedding_bytes = config.vocab_size * config.hidden_size * _BYTES[self._dtype]
            return self._model.weights.num_bytes_on_grid + embedding_bytes
        # The embedding is read as it is, the head in panels; if they are tied, it is there twice.
        num_twice = config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0
        dtype: Dtype = self._dtype if self._hardware.has_native_kernels else "float32"
        return (self._model.weights.num_parameters + num_twice) * _BYTES[dtype]

    @property
    def _block_bytes(self) -> int:
        config = self._model.config
        value_size = _num_blocks(config.head_dim) * BLOCK_SIZE  # values lie in panels that wide
        values = config.num_layers * config.num_kv_heads * (config.head_dim + value_size)
        return values * _BYTES[self._kv_cache_dtype] * BLOCK_SIZE

    def _blocks_that_fit(self) -> int:
        available = self._hardware.available_memory_bytes
        free_bytes = available * _USABLE_SHARE - self._weights_bytes
        num_blocks = int(free_bytes * self._options.tgi_wiggle_room // self._block_bytes)
        if num_blocks < 1:
            raise CapacityError(
                f"{self._model.model_id} needs {_show_bytes(self._weights_bytes)} for its weights "
                f"and room for a KV cache; {_show_bytes(available)} of memory are available",
                hint="Free memory, or serve a smaller model.",
            )
        return num_blocks

    # Token limits

    def _limits(self) -> _Limits:
        num_fitting_blocks = self._blocks_that_fit()
        capacity = self._capacity(num_fitting_blocks * BLOCK_SIZE)
        max_total = self._max_total_tokens(capacity)
        max_input = self._max_input_tokens(max_total)
        max_sequences = self._max_sequences()
        # More than every sequence at its longest could never be used.
        num_blocks = min(_num_blocks(capacity), max_sequences * _num_blocks(max_total))
        max_batch_total = min(capacity, num_blocks * BLOCK_SIZE)
        self._describe_cache(num_blocks, num_fitting_blocks, max_batch_total)
        return _Limits(
            max_input_tokens=max_input,
            max_total_tokens=max_total,
            max_batch_prefill_tokens=self._max_prefill_tokens(capacity, max_batch_total),
            max_batch_total_tokens=max_batch_total,
            num_blocks=num_blocks,
            max_running=min(max_sequences, num_blocks),  # each holds a block at least
        )

    def _capacity(self, num_fitting_tokens: int) -> int:
        """Return the token slots that may be had: what fits, or less if less was asked for."""
        asked = self._options.max_batch_total_tokens
        if asked is None or asked <= num_fitting_tokens:
            return asked or num_fitting_tokens
        self._warnings.append(
            f"`max_batch_total_tokens` is {asked} but {num_fitting_tokens} fit the memory; "
            f"{num_fitting_tokens} is used"
        )
        return num_fitting_tokens

    def _max_total_tokens(self, capacity: int) -> int:
        trained = self._model.config.max_position_embeddings
        asked = self._options.max_total_tokens
        if asked is None:
            bounds = [(trained, "the model's max_position_embeddings")]
            if self._model.text.model_max_length is not None:
                bounds.append((self._model.text.model_max_length, "the tokenizer's longest text"))
            bounds.append((capacity, "what the KV cache holds"))
            value, reason = min(bounds, key=lambda bound: bound[0])
            if value < 2:
                raise CapacityError("Not enough memory to handle `max_total_tokens=2`")
            self._decide("max_total_tokens", value, reason)
            return value
        if asked > capacity:
            raise CapacityError(
                f"Not enough memory to handle `max_total_tokens={asked}`",
                hint=f"{capacity} tokens fit: lower --max-total-tokens.",
            )
        if asked > trained:
            self._accept_beyond_trained_length(asked, trained)
        self._decide("max_total_tokens", asked, "asked for")
        return asked

    def _accept_beyond_trained_length(self, asked: int, trained: int) -> None:
        scaling = self._model.config.rope_scaling
        if scaling is not None and scaling.kind == "dynamic":
            raise UnsupportedModelError(
                f"`max_total_tokens` is {asked}, but dynamic rope scaling is supported up to the "
                f"model's own {trained} tokens",
                hint=f"Lower --max-total-tokens to {trained}.",
            )
        self._warnings.append(
            f"`max_total_tokens` is {asked}, beyond the model's own {trained}: expect worse text"
        )

    def _max_input_tokens(self, max_total: int) -> int:
        asked = asked_input_tokens(self._options)
        if asked is None:
            self._decide("max_input_tokens", max_total - 1, "max_total_tokens less 1")
            return max_total - 1
        if self._options.max_input_length is not None:
            self._warnings.append("`max_input_length` is deprecated: use `max_input_tokens`")
        if asked >= max_total:
            raise ArgumentError(
                "`max_input_tokens` must be < `max_total_tokens`",
                hint=f"`max_total_tokens` is {max_total} here.",
            )
        self._decide("max_input_tokens", asked, "asked for")
        return asked

    def _max_prefill_tokens(self, capacity: int, max_batch_total: int) -> int:
        asked = self._options.max_batch_prefill_tokens
        check_within_batch("max_batch_prefill_tokens", asked, capacity)
        bounds = [(max_batch_total, "the KV cache holds no more")]
        if asked is not None:
            bounds.insert(0, (asked, "asked for"))
        else:
            trained = self._model.config.max_position_embeddings
            bounds.insert(0, (_BASE_PREFILL_TOKENS, "the usual value"))
            bounds.insert(1, (trained, "the model's max_position_embeddings"))
        value, reason = min(bounds, key=lambda bound: bound[0])
        self._decide("max_batch_prefill_tokens", value, reason)
        return value

    def _max_sequences(self) -> int:
        """Return how many sequences may be in the engine at once."""
        options = self._options
        return options.max_batch_size or options.max_concurrent_requests * options.max_best_of

    def _describe_cache(
        self, num_blocks: int, num_fitting_blocks: int, max_batch_total: int
    ) -> None:
        cache_bytes = num_blocks * self._block_bytes
        self._decide(
            "KV cache",
            f"{num_blocks} blocks",
            f"of {BLOCK_SIZE} tokens, {_show_bytes(cache_bytes)}; taken as it is used",
        )
        if num_blocks == num_fitting_blocks:
            share = self._options.tgi_wiggle_room
            available = _show_bytes(self._hardware.available_memory_bytes)
            reason = f"{share:.0%} of what the weights leave free of {available}"
        elif max_batch_total == self._options.max_batch_total_tokens:
            reason = "asked for"
        else:
            reason = "what the other limits can use"
        self._decide("max_batch_total_tokens", max_batch_total, reason)

    # The two sides

    def _engine_config(self, limits: _Limits) -> EngineConfig:
        num_threads = self._options.cpu_threads or self._hardware.num_cores
        asked = "asked for" if self._options.cpu_threads else "cores that this process may use"
        self._decide("threads", num_threads, asked)
        self._decide(
            "max_running",
            limits.max_running,
            "max_batch_size"
            if self._options.max_batch_size
            else "max_concurrent_requests times max_best_of, or one KV block for each",
        )
        return EngineConfig(
            model=self._model.config,
            weights=self._model.weights,
            eos_token_ids=self._model.eos_token_ids,
            device="cpu",
            dtype=self._dtype,
            kv_cache_dtype=self._kv_cache_dtype,
            keeps_grid=self._options.quantize == "gguf",
            block_size=BLOCK_SIZE,
            num_blocks=limits.num_blocks,
            max_step_tokens=self._max_step_tokens(limits),
            max_running=limits.max_running,
            max_total_tokens=limits.max_total_tokens,
            num_threads=num_threads,
            verify_determinism=self._options.verify_determinism,
            prefix_caching=self._options.prefix_caching,
            prefill_chunking=self._options.prefill_chunking,
            waiting_served_ratio=self._options.waiting_served_ratio,
            max_waiting_tokens=self._options.max_waiting_tokens,
            watermark_gamma=self._options.watermark_gamma,
            watermark_delta=self._options.watermark_delta,
            tokenizer_json=self._grammar_tokenizer(),
            log=log_config(self._options),
        )

    def _max_step_tokens(self, limits: _Limits) -> int:
        """A step may hold fewer prompt tokens than a batch: a long prompt is computed in chunks."""
        step = min(limits.max_batch_prefill_tokens, _CPU_STEP_TOKENS)
        if step < limits.max_batch_prefill_tokens:
            reason = "longer prompts in chunks: more rows run no faster here, and others would wait"
        else:
            reason = "max_batch_prefill_tokens"
        self._decide("max_step_tokens", step, reason)
        return step

    def _grammar_tokenizer(self) -> str:
        return "" if self._options.disable_grammar_support else self._model.text.tokenizer_json

    def _router_config(self, limits: _Limits) -> RouterConfig:
        options = self._options
        return RouterConfig(
            model_id=self._model.model_id,
            model_sha=self._model.sha,
            model_pipeline_tag=self._model.pipeline_tag,
            model_dtype=f"torch.{self._dtype}",
            limits=RequestLimits(
                max_concurrent_requests=options.max_concurrent_requests,
                max_best_of=options.max_best_of,
                max_stop_sequences=options.max_stop_sequences,
                max_top_n_tokens=options.max_top_n_tokens,
                max_input_tokens=limits.max_input_tokens,
                max_total_tokens=limits.max_total_tokens,
                max_client_batch_size=options.max_client_batch_size,
                payload_limit_bytes=options.payload_limit,
                strict_lengths=options.strict_lengths,
            ),
            hostname=self._hostname(),
            port=options.port,
            api_key=options.api_key,
            api_key_file=options.api_key_file,
            protects_chat_tokenize=options.protect_chat_tokenize,
            cors_allow_origin=options.cors_allow_origin,
            validation_workers=options.validation_workers,
            graceful_termination_timeout_s=float(options.graceful_termination_timeout),
            compute_type=options.compute_type,
            docker_label=options.docker_label,
            build_sha=options.build_sha,
            vertex_predict_route=options.aip_predict_route,
            vertex_health_route=options.aip_health_route,
            prometheus_port=self._prometheus_port(),
            openai_strict=options.openai_strict,
            supports_grammars=not options.disable_grammar_support,
            otlp_endpoint=options.otlp_endpoint,
            otlp_service_name=options.otlp_service_name,
            watermark_gamma=options.watermark_gamma,
            watermark_delta=options.watermark_delta,
            max_batch_total_tokens=limits.max_batch_total_tokens,
            max_batch_prefill_tokens=limits.max_batch_prefill_tokens,
            max_batch_size=options.max_batch_size,
            log=log_config(options),
        )

    def _prometheus_port(self) -> int | None:
        port = self._options.prometheus_port
        return None if port in (0, self._options.port) else port

    def _hostname(self) -> str:
        # Container runtimes put the container's id into HOSTNAME; it is never looked up.
        if is_ip_address(self._options.hostname):
            return self._options.hostname
        self._warnings.append(f"Invalid hostname, defaulting to {_ANY_ADDRESS}")
        return _ANY_ADDRESS


def _num_blocks(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_SIZE)


def _show_bytes(num_bytes: int) -> str:
    if num_bytes >= 1 << 30:
        return f"{num_bytes / (1 << 30):.2f} GiB"
    return f"{num_bytes / (1 << 20):.1f} MiB"
