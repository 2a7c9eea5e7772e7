"""Refuse options that contradict each other or this build, before any model is looked for.

What changes a server's answers or its powers and can't be had here is refused; what only tunes
hardware that isn't here is accepted and told (docs/guides/configuration.md). The texts are TGI's
where it has one (spec/launcher-options.md section 3): people search for them.
"""

from __future__ import annotations

from collections.abc import Iterator

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.device import FP8, DeviceKind, machine_obstacle, refusal
from tgi_cli.runtime.config.facts import GpuStack
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.quantization.choice import check_dtype
from tgi_cli.runtime.config.settings import SETTINGS
from tgi_cli.runtime.config.shards import num_shards, num_visible_devices

_AT_LEAST_ONE = (
    "validation_workers",
    "max_batch_size",
    "max_concurrent_requests",
    "max_best_of",
    "max_client_batch_size",
    "payload_limit",
    "stall_timeout",
    "max_input_tokens",
    "max_input_length",
    "max_batch_prefill_tokens",
    "max_batch_total_tokens",
    "cpu_threads",
)
_MAX_THREADS = 1024
_UNASKED = ServeOptions()
_NO_GPUS = GpuStack()


def check_options(options: ServeOptions, gpus: GpuStack = _NO_GPUS) -> None:
    """Raise `ArgumentError` for options that no model could make right on this machine."""
    _check_not_blank(options)
    for name in _AT_LEAST_ONE:
        if getattr(options, name) == 0:
            raise ArgumentError(f"`{name}` must be > 0")
    if options.cpu_threads is not None and options.cpu_threads > _MAX_THREADS:
        raise ArgumentError(f"`cpu_threads` must be <= {_MAX_THREADS}")
    _check_token_limits(options)
    _check_shards(options, len(gpus.driver.gpus))
    _check_device(options, gpus)
    _check_formats(options)
    _check_parts_to_come(options)
    _check_ngrok(options)


def warnings_of(
    options: ServeOptions, gpus: GpuStack = _NO_GPUS, device: DeviceKind = "cpu"
) -> Iterator[str]:
    """Yield what was asked for and changes nothing on `device`, each with the reason."""
    for setting in SETTINGS:
        if setting.no_effect and getattr(options, setting.name) != setting.default:
            yield f"`{setting.name}` has no effect: {setting.no_effect}"
    if device == "cpu":
        yield from _gpu_only(options)
    if options.quantize == "bitsandbytes":  # TGI's words
        yield (
            "Bitsandbytes is deprecated, use `eetq` instead, which provides better latencies "
            "overall and is drop-in in most cases."
        )
    if options.prefill_chunking:
        for name in ("waiting_served_ratio", "max_waiting_tokens"):
            if getattr(options, name) != getattr(_UNASKED, name):
                yield f"`{name}` has no effect: prompts are computed in chunks beside decoding"
    num_devices = num_visible_devices(options, len(gpus.driver.gpus))
    if device == "cuda" and num_devices > 1:
        yield (
            f"GPUs are visible ({num_devices}), but this version runs a model in one shard: the "
            "first one computes"
        )


def _gpu_only(options: ServeOptions) -> Iterator[str]:
    if options.attention not in (None, "paged"):
        yield f"`attention` is {options.attention}, which needs a GPU; paged is used"
    if options.cuda_graphs:
        yield "`cuda_graphs` has no effect: a CPU has none"


def asked_input_tokens(options: ServeOptions) -> int | None:
    """Return the longest prompt that was asked for, under either name of the option."""
    if options.max_input_tokens is not None:
        return options.max_input_tokens
    return options.max_input_length


def check_within_batch(name: str, value: int | None, max_batch_total_tokens: int | None) -> None:
    """Raise `ArgumentError` if a limit passes the number of token slots; None is no limit."""
    if value is None or max_batch_total_tokens is None or value <= max_batch_total_tokens:
        return
    raise ArgumentError(
        f"`{name}` must be <= `max_batch_total_tokens`. Given: {value} and {max_batch_total_tokens}"
    )


def check_whole_prefill(max_batch_prefill_tokens: int, max_input_tokens: int) -> None:
    """Raise `ArgumentError` if a prompt of the longest kind can't be computed in one step."""
    if max_batch_prefill_tokens < max_input_tokens:
        raise ArgumentError(
            "`max_batch_prefill_tokens` must be >= `max_input_tokens`. "
            f"Given: {max_batch_prefill_tokens} and {max_input_tokens}"
        )


def _check_not_blank(options: ServeOptions) -> None:
    """Refuse `--api-key "$KEY"` with an unset KEY: it would be a key that everybody knows."""
    for setting in SETTINGS:
        value = getattr(options, setting.name)
        entries = value if isinstance(value, tuple) else (value,)
        if any(isinstance(entry, str) and not entry.strip() for entry in entries):
            raise ArgumentError(
                f"`{setting.name}` is empty",
                hint=f"Leave {setting.flag} out, or give it a value.",
            )


def _check_token_limits(options: ServeOptions) -> None:
    if options.max_input_tokens is not None and options.max_input_length is not None:
        # The unbalanced quotes are TGI's.
        raise ArgumentError(
            f"Both `max_input_tokens` ({options.max_input_tokens}) and `max_input_length` "
            f"({options.max_input_length}) are set. Please define only `max_input_tokens` as "
            "`max_input_length is deprecated for naming consistency."
        )
    num_input, num_total = asked_input_tokens(options), options.max_total_tokens
    if num_input is not None and num_total is not None and num_input >= num_total:
        raise ArgumentError(
            f"`max_input_tokens`({num_input}) must be < `max_total_tokens`({num_total})"
        )
    if num_total is not None and num_total < 2:
        raise ArgumentError("`max_total_tokens` must be > 1")
    num_prefill = options.max_batch_prefill_tokens
    if not options.prefill_chunking and num_prefill is not None and num_input is not None:
        check_whole_prefill(num_prefill, num_input)
    for name in ("max_batch_prefill_tokens", "max_total_tokens"):
        check_within_batch(name, getattr(options, name), options.max_batch_total_tokens)


def _check_shards(options: ServeOptions, num_driver_devices: int) -> None:
    num_devices = num_visible_devices(options, num_driver_devices)
    num_asked = num_shards(options.sharded, options.num_shard, num_devices)
    if num_asked > 1 and options.quantize == "exl2":
        raise ArgumentError("Sharding is currently not supported with `exl2` quantization")
    if num_asked > 1 and (options.sharded or options.num_shard is not None):
        raise ArgumentError(
            f"`num_shard` is {num_asked}, but this version runs a model in one shard",
            hint="Leave --num-shard and --sharded out.",
        )


def _check_device(options: ServeOptions, gpus: GpuStack) -> None:
    obstacle = machine_obstacle(gpus)
    if options.device == "cuda" and obstacle is not None:
        raise refusal(obstacle)
    if options.device == "cpu" or obstacle is not None:
        check_cpu(options)


def check_cpu(options: ServeOptions) -> None:
    """Raise `ArgumentError` for what only a GPU can do."""
    if options.kv_cache_dtype in FP8:
        raise ArgumentError(
            f"`kv_cache_dtype` is {options.kv_cache_dtype}, which needs a GPU; on a CPU it may be "
            "float16, bfloat16 or float32"
        )


def _check_formats(options: ServeOptions) -> None:
    quantize = options.quantize
    if quantize is not None:
        check_dtype(options, quantize)
    if quantize == "exl2":
        raise ArgumentError(
            "`quantize` is exl2, whose layout only ExLlamaV2's GPU kernels read",
            hint="Serve a GPTQ or AWQ version of the model.",
        )


def _check_parts_to_come(options: ServeOptions) -> None:
    for entry in options.lora_adapters:
        name = entry.partition("=")[0].partition("@")[0]
        if entry.count("@") > 1 or entry.count("=") > 1 or not name:
            raise ArgumentError(f"Invalid LoRA adapter format: {entry}")
    if options.lora_adapters:
        raise ArgumentError(
            "`lora_adapters` is set, but this version serves no adapters",
            hint="Merge the adapter into its base model, and serve that.",
        )
    if options.speculate:
        raise ArgumentError(
            f"`speculate` is {options.speculate}, but this version doesn't draft tokens ahead",
            hint="Leave --speculate out, or give 0: the answers are the same.",
        )


def _check_ngrok(options: ServeOptions) -> None:
    if not options.ngrok:
        return
    for name, value in (
        ("ngrok-authtoken", options.ngrok_authtoken),
        ("ngrok-edge", options.ngrok_edge),
    ):
        if value is None:
            raise ArgumentError(f"`{name}` must be set when using ngrok tunneling")
    raise ArgumentError(
        "`ngrok` is set, but this server opens no tunnels",
        hint="Leave --ngrok out and run ngrok's own client beside the server.",
    )
