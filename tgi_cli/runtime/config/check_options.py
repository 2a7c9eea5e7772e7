"""Refuse options that contradict each other or this build, before any model is looked for.

The texts are TGI's where it has one (spec/launcher-options.md section 3): people search for them.
"""

from __future__ import annotations

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.options import ServeOptions

_AT_LEAST_ONE = (
    "validation_workers",
    "max_batch_size",
    "max_concurrent_requests",
    "max_best_of",
    "max_client_batch_size",
    "payload_limit",
    "max_input_tokens",
    "max_input_length",
    "max_batch_prefill_tokens",
    "max_batch_total_tokens",
    "cpu_threads",
)


def check_options(options: ServeOptions) -> None:
    """Raise `ArgumentError` for options that no model and no machine could make right."""
    for name in _AT_LEAST_ONE:
        if getattr(options, name) == 0:
            raise ArgumentError(f"`{name}` must be > 0")
    _check_token_limits(options)
    _check_shards(options)
    _check_device(options)
    if options.quantize not in (None, "gguf"):
        raise ArgumentError(
            f"`quantize` is {options.quantize}, which this version can't serve; it takes gguf, or "
            "none for weights of float32, float16 or bfloat16"
        )
    if options.kv_cache_dtype in ("fp8_e4m3fn", "fp8_e5m2"):
        raise ArgumentError(
            f"`kv_cache_dtype` is {options.kv_cache_dtype}, which needs a GPU; on a CPU it may be "
            "float16, bfloat16 or float32"
        )


def asked_input_tokens(options: ServeOptions) -> int | None:
    """Return the longest prompt that was asked for, under either name of the option."""
    if options.max_input_tokens is not None:
        return options.max_input_tokens
    return options.max_input_length


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
    for name in ("max_batch_prefill_tokens", "max_total_tokens"):
        check_within_batch(name, getattr(options, name), options.max_batch_total_tokens)


def check_within_batch(name: str, value: int | None, max_batch_total_tokens: int | None) -> None:
    """Raise `ArgumentError` if a limit passes the number of token slots; None is no limit."""
    if value is None or max_batch_total_tokens is None or value <= max_batch_total_tokens:
        return
    raise ArgumentError(
        f"`{name}` must be <= `max_batch_total_tokens`. Given: {value} and {max_batch_total_tokens}"
    )


def _check_shards(options: ServeOptions) -> None:
    if options.num_shard == 0:
        raise ArgumentError("`num_shard` cannot be < 1")
    if options.sharded and options.num_shard == 1:
        raise ArgumentError("`sharded` is true but `num_shard` <= 1")
    if options.sharded and options.num_shard is None:
        raise ArgumentError("`sharded` is true but only found 0 CUDA devices")
    if options.num_shard is not None and options.num_shard > 1:
        raise ArgumentError(
            f"`num_shard` is {options.num_shard}, but this version runs a model in one shard",
            hint="Leave --num-shard out.",
        )


def _check_device(options: ServeOptions) -> None:
    if options.device == "cuda":
        raise ArgumentError(
            "`device` is cuda, but this version has no GPU path yet: it computes on the CPU",
            hint="Leave --device out, or give --device cpu.",
        )
