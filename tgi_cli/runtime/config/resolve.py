"""From what was asked to what is decided: one pure function of options, model and machine.

Every value gets a `Decision` with its reason, for the start table. Spec: launcher-options.md
section 4; the lengths are decided in `token_limits.py`.
"""

from __future__ import annotations

import dataclasses

import msgspec

from tgi_cli.runtime.config.attention import BLOCK_SIZES, choose_attention
from tgi_cli.runtime.config.check_options import check_cpu, check_options, warnings_of
from tgi_cli.runtime.config.cuda_graphs import choose_cuda_graphs
from tgi_cli.runtime.config.device import Device, choose_device, model_obstacles
from tgi_cli.runtime.config.facts import HardwareFacts, ModelFacts
from tgi_cli.runtime.config.memory import (
    CpuMemoryPlan,
    GpuMemoryPlan,
    MemoryPlan,
    too_little_memory,
)
from tgi_cli.runtime.config.model_config import ModelConfig, RopeScaling
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.parsers import is_ip_address
from tgi_cli.runtime.config.quantization.choice import choose
from tgi_cli.runtime.config.resolved import (
    AttentionName,
    EngineConfig,
    LogConfig,
    RequestLimits,
    ResolvedConfig,
    RouterConfig,
)
from tgi_cli.runtime.config.start_notes import StartNotes, show_bytes
from tgi_cli.runtime.config.token_limits import LimitsResolver, TokenLimits

_ANY_ADDRESS = "0.0.0.0"


def log_config(options: ServeOptions) -> LogConfig:
    return LogConfig(level=options.log_level, json=options.json_output, colour=options.log_colorize)


def resolve(
    options: ServeOptions,
    model: ModelFacts,
    hardware: HardwareFacts,
    num_measured_blocks: int | None = None,
) -> ResolvedConfig:
    """Decide everything.

    How many KV blocks fit a GPU is known once the model has run on it: until then a bound is
    decided upon, and then all of it again, with `num_measured_blocks`.

    Raises:
        ArgumentError: options that contradict each other or the model.
        CapacityError: the model, or one request of the length asked for, doesn't fit the memory.
        UnsupportedModelError: a length at which this model can't be run.
    """
    check_options(options, hardware.gpus)
    if options.disable_custom_kernels:
        hardware = dataclasses.replace(hardware, has_native_kernels=False)
    return _Resolver(options, model, hardware, num_measured_blocks).resolve()


class _Resolver:
    def __init__(
        self,
        options: ServeOptions,
        model: ModelFacts,
        hardware: HardwareFacts,
        num_measured_blocks: int | None,
    ) -> None:
        self._options = options
        self._model = model
        self._hardware = hardware
        self._config = _with_rope_options(model.config, options)
        self._choice = choose(options, model)
        self._device = self._choose_device()
        self._notes = StartNotes(warnings_of(options, hardware.gpus, self._device.kind))
        self._attention: AttentionName = "paged"
        self._memory: MemoryPlan
        if self._device.kind == "cpu":
            check_cpu(options)
            self._memory = CpuMemoryPlan(options, model, hardware, self._choice)
        else:
            self._attention = choose_attention(options.attention, hardware.gpus)
            assert hardware.gpus.gpu is not None
            self._memory = GpuMemoryPlan(
                options,
                model,
                hardware.gpus.gpu,
                self._choice,
                BLOCK_SIZES[self._attention],
                num_measured_blocks,
            )

    def _choose_device(self) -> Device:
        options, model, gpu = self._options, self._model, self._hardware.gpus.gpu
        obstacles = list(model_obstacles(options, model.config))
        if gpu is not None:
            memory = GpuMemoryPlan(options, model, gpu, self._choice)
            if not memory.holds_weights:
                obstacles.append(too_little_memory(model.model_id, memory).message)
        return choose_device(options, self._hardware.gpus, obstacles)

    def resolve(self) -> ResolvedConfig:
        self._describe_model()
        limits = LimitsResolver(
            self._options,
            self._config,
            self._model.text,
            self._memory,
            self._device.kind,
            self._notes,
        ).resolve()
        self._describe_batching()
        return ResolvedConfig(
            router=self._router_config(limits),
            engine=self._engine_config(limits),
            decisions=tuple(self._notes.decisions),
            warnings=tuple(self._notes.warnings),
        )

    def _describe_model(self) -> None:
        model, options, decide = self._model, self._options, self._notes.decide
        decide("model", model.model_id, f"{model.config.family} family")
        decide("revision", model.sha or "none", "commit on the hub" if model.sha else "local files")
        if options.revision and model.sha is None:
            self._notes.warn("`revision` has no effect: the model's files are local")
        decide("dtype", self._memory.dtype, self._memory.dtype_reason)
        if self._choice.name is not None:
            decide("quantize", self._choice.name, self._choice.reason)
        decide(
            "kv_cache_dtype",
            self._memory.kv_cache_dtype,
            "asked for" if options.kv_cache_dtype else "as the weights",
        )
        decide("device", self._device.kind, self._device.reason)
        if self._device.warning is not None:
            self._notes.warn(self._device.warning)
        if options.disable_custom_kernels:
            decide("custom_kernels", False, "asked for; torch computes, slower")
        decide(
            "weights",
            show_bytes(model.weights.num_bytes),
            f"{model.weights.num_parameters:,} parameters as {model.weights.kind}; "
            f"{show_bytes(self._memory.weights_bytes)} in memory",
        )
        scaling = self._config.rope_scaling
        if scaling is not None:
            is_own = self._config is model.config
            reason = "the model's own" if is_own else "asked for"
            decide("rope scaling", f"{scaling.kind}, factor {scaling.factor:g}", reason)

    def _describe_batching(self) -> None:
        options, decide = self._options, self._notes.decide
        decide("attention", self._attention, self._attention_reason())
        decide("prefix_caching", options.prefix_caching, "equal beginnings share their KV cache")
        decide(
            "prefill_chunking",
            options.prefill_chunking,
            "long prompts don't hold up decoding"
            if options.prefill_chunking
            else f"asked for; waiting_served_ratio {options.waiting_served_ratio:g} and "
            f"max_waiting_tokens {options.max_waiting_tokens} interrupt decoding",
        )
        if options.disable_grammar_support:
            decide("grammars", "off", "asked for")

    def _attention_reason(self) -> str:
        if self._device.kind == "cpu":
            return "the CPU's only kernels"
        if self._attention == "paged":
            return "our own kernels: a row's bits don't depend on the batch"
        self._notes.warn(
            f"`attention` is {self._options.attention}: that library may give a request other bits "
            "in another batch"
        )
        return "asked for"

    # The two sides

    def _engine_config(self, limits: TokenLimits) -> EngineConfig:
        options, notes = self._options, self._notes
        num_threads = options.cpu_threads or self._hardware.num_cores
        asked = "asked for" if options.cpu_threads else "cores that this process may use"
        notes.decide("threads", num_threads, asked)
        notes.decide(
            "max_running",
            limits.max_running,
            "max_batch_size"
            if options.max_batch_size
            else "max_concurrent_requests times max_best_of, or one KV block for each",
        )
        return EngineConfig(
            model=self._config,
            weights=msgspec.structs.replace(
                self._model.weights,
                quantization=self._choice.quantization,
                keeps_grid=self._choice.keeps_grid,
            ),
            eos_token_ids=self._model.eos_token_ids,
            device=self._device.kind,
            dtype=self._memory.dtype,
            kv_cache_dtype=self._memory.kv_cache_dtype,
            attention=self._attention,
            custom_kernels=not options.disable_custom_kernels,
            block_size=self._memory.block_size,
            num_blocks=limits.num_blocks,
            memory_fraction=options.cuda_memory_fraction,
            wiggle_room=options.tgi_wiggle_room,
            cuda_graphs=self._cuda_graphs(limits.max_running),
            max_step_tokens=limits.max_step_tokens,
            max_running=limits.max_running,
            max_total_tokens=limits.max_total_tokens,
            num_threads=num_threads,
            verify_determinism=options.verify_determinism,
            prefix_caching=options.prefix_caching,
            prefill_chunking=options.prefill_chunking,
            waiting_served_ratio=options.waiting_served_ratio,
            max_waiting_tokens=options.max_waiting_tokens,
            watermark_gamma=options.watermark_gamma,
            watermark_delta=options.watermark_delta,
            tokenizer_json=(
                "" if options.disable_grammar_support else self._model.text.tokenizer_json
            ),
            log=log_config(options),
        )

    def _cuda_graphs(self, max_running: int) -> tuple[int, ...]:
        if self._device.kind == "cpu":
            return ()
        if self._attention == "flashinfer":
            self._notes.decide("cuda_graphs", "none", "flashinfer lays out each step on the host")
            return ()
        sizes = choose_cuda_graphs(self._options, self._choice.name, max_running)
        asked = "asked for" if self._options.cuda_graphs is not None else "the usual sizes"
        self._notes.decide("cuda_graphs", ",".join(map(str, sizes)) or "none", asked)
        return sizes

    def _router_config(self, limits: TokenLimits) -> RouterConfig:
        options = self._options
        return RouterConfig(
            model_id=self._model.model_id,
            model_sha=self._model.sha,
            model_pipeline_tag=self._model.pipeline_tag,
            model_dtype=f"torch.{self._memory.dtype}",
            model_device_type=self._device.kind,
            waiting_served_ratio=options.waiting_served_ratio,
            max_waiting_tokens=options.max_waiting_tokens,
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
            stall_timeout_s=float(options.stall_timeout),
            compute_type=self._compute_type(),
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

    def _compute_type(self) -> str:
        if self._options.compute_type is not None:
            return self._options.compute_type
        gpu = self._hardware.gpus.gpu
        if gpu is None:
            return "gpu+optimized"  # TGI's word where it knows none, whatever computes
        name = gpu.name.lower().replace(" ", "-")
        return f"{self._options.num_shard or 1}-{name}"

    def _prometheus_port(self) -> int | None:
        port = self._options.prometheus_port
        return None if port in (0, self._options.port) else port

    def _hostname(self) -> str:
        # Container runtimes put the container's id into HOSTNAME; it is never looked up.
        if is_ip_address(self._options.hostname):
            return self._options.hostname
        self._notes.warn(f"Invalid hostname, defaulting to {_ANY_ADDRESS}")
        return _ANY_ADDRESS


def _with_rope_options(config: ModelConfig, options: ServeOptions) -> ModelConfig:
    """Return the model with the scaling that was asked for; a factor alone is linear."""
    if options.rope_scaling is None and options.rope_factor is None:
        return config
    factor = 1.0 if options.rope_factor is None else options.rope_factor
    scaling = RopeScaling(kind=options.rope_scaling or "linear", factor=factor)
    return msgspec.structs.replace(config, rope_scaling=scaling)
