"""From the options, the model and the memory to the lengths of requests, batches and the cache.

All in tokens, inclusive, unless a name says otherwise. Spec: launcher-options.md sections 3, 4.2
and 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from tgi_cli.errors import ArgumentError, CapacityError, UnsupportedModelError
from tgi_cli.runtime.config.check_options import (
    asked_input_tokens,
    check_whole_prefill,
    check_within_batch,
)
from tgi_cli.runtime.config.device import DeviceKind
from tgi_cli.runtime.config.memory import MemoryPlan, num_blocks
from tgi_cli.runtime.config.model_config import ModelConfig, TextAssets
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.start_notes import StartNotes, show_bytes

_BASE_PREFILL_TOKENS = 4096
_CPU_STEP_TOKENS = 512  # a matrix product on a CPU is at its peak with this many rows


@dataclass(frozen=True, slots=True)
class TokenLimits:
    max_input_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    max_step_tokens: int
    max_batch_total_tokens: int
    num_blocks: int
    max_running: int  # sequences


class LimitsResolver:
    """Decides the limits and tells the reasons to `notes`."""

    def __init__(
        self,
        options: ServeOptions,
        config: ModelConfig,
        text: TextAssets,
        memory: MemoryPlan,
        device: DeviceKind,
        notes: StartNotes,
    ) -> None:
        self._options = options
        self._config = config
        self._text = text
        self._memory = memory
        self._device = device
        self._notes = notes

    def resolve(self) -> TokenLimits:
        """Decide.

        Raises:
            ArgumentError: limits that contradict each other or the model.
            CapacityError: one request of the length asked for doesn't fit the memory.
            UnsupportedModelError: a length at which this model can't be run.
        """
        num_fitting_blocks = self._memory.blocks_that_fit()
        block_size = self._memory.block_size
        capacity = self._capacity(num_fitting_blocks * block_size)
        max_total = self._max_total_tokens(capacity)
        max_input = self._max_input_tokens(max_total)
        max_sequences = self._max_sequences()
        # More than every sequence at its longest could never be used.
        num_cache_blocks = min(
            num_blocks(capacity, block_size), max_sequences * num_blocks(max_total, block_size)
        )
        max_batch_total = min(capacity, num_cache_blocks * block_size)
        self._describe_cache(num_cache_blocks, num_fitting_blocks, max_batch_total)
        max_prefill = self._max_prefill_tokens(capacity, max_batch_total, max_input)
        return TokenLimits(
            max_input_tokens=max_input,
            max_total_tokens=max_total,
            max_batch_prefill_tokens=max_prefill,
            max_step_tokens=self._max_step_tokens(max_prefill),
            max_batch_total_tokens=max_batch_total,
            num_blocks=num_cache_blocks,
            max_running=min(max_sequences, num_cache_blocks),  # each holds a block at least
        )

    def _capacity(self, num_fitting_tokens: int) -> int:
        """Return the token slots that may be had: what fits, or less if less was asked for."""
        asked = self._options.max_batch_total_tokens
        if asked is None or asked <= num_fitting_tokens:
            return asked or num_fitting_tokens
        self._notes.warn(
            f"`max_batch_total_tokens` is {asked} but {num_fitting_tokens} fit the memory; "
            f"{num_fitting_tokens} is used"
        )
        return num_fitting_tokens

    def _max_total_tokens(self, capacity: int) -> int:
        trained = self._config.max_position_embeddings
        asked = self._options.max_total_tokens
        if asked is None:
            bounds = [(trained, "the model's max_position_embeddings")]
            if self._text.model_max_length is not None:
                bounds.append((self._text.model_max_length, "the tokenizer's longest text"))
            bounds.append((capacity, "what the KV cache holds"))
            value, reason = min(bounds, key=lambda bound: bound[0])
            if value < 2:
                raise CapacityError("Not enough memory to handle `max_total_tokens=2`")
            self._notes.decide("max_total_tokens", value, reason)
            return value
        if asked > capacity:
            raise CapacityError(
                f"Not enough memory to handle `max_total_tokens={asked}`",
                hint=f"{capacity} tokens fit: lower --max-total-tokens.",
            )
        if asked > trained:
            self._accept_beyond_trained_length(asked, trained)
        self._notes.decide("max_total_tokens", asked, "asked for")
        return asked

    def _accept_beyond_trained_length(self, asked: int, trained: int) -> None:
        scaling = self._config.rope_scaling
        if scaling is not None and scaling.kind == "dynamic":
            raise UnsupportedModelError(
                f"`max_total_tokens` is {asked}, but dynamic rope scaling is supported up to the "
                f"model's own {trained} tokens",
                hint=f"Lower --max-total-tokens to {trained}.",
            )
        if asked > trained * (self._options.rope_factor or 1.0):
            self._notes.warn(
                f"`max_total_tokens` is {asked}, beyond the model's own {trained}: "
                "expect worse text"
            )

    def _max_input_tokens(self, max_total: int) -> int:
        asked = asked_input_tokens(self._options)
        if asked is None:
            self._notes.decide("max_input_tokens", max_total - 1, "max_total_tokens less 1")
            return max_total - 1
        if self._options.max_input_length is not None:
            self._notes.warn("`max_input_length` is deprecated: use `max_input_tokens`")
        if asked >= max_total:
            raise ArgumentError(
                "`max_input_tokens` must be < `max_total_tokens`",
                hint=f"`max_total_tokens` is {max_total} here.",
            )
        self._notes.decide("max_input_tokens", asked, "asked for")
        return asked

    def _max_prefill_tokens(self, capacity: int, max_batch_total: int, max_input: int) -> int:
        asked = self._options.max_batch_prefill_tokens
        check_within_batch("max_batch_prefill_tokens", asked, capacity)
        is_whole = not self._options.prefill_chunking
        bounds = [(max_batch_total, "the KV cache holds no more")]
        if asked is not None:
            if is_whole:
                check_whole_prefill(asked, max_input)
            bounds.insert(0, (asked, "asked for"))
        elif is_whole and max_input > _BASE_PREFILL_TOKENS:
            bounds.insert(0, (max_input, "the longest prompt, which is computed whole"))
        else:
            trained = self._config.max_position_embeddings
            longest = max(trained, max_input) if is_whole else trained
            bounds.insert(0, (_BASE_PREFILL_TOKENS, "the usual value"))
            bounds.insert(1, (longest, "the model's max_position_embeddings"))
        value, reason = min(bounds, key=lambda bound: bound[0])
        self._notes.decide("max_batch_prefill_tokens", value, reason)
        return value

    def _max_step_tokens(self, max_prefill: int) -> int:
        """On a CPU a step holds fewer prompt tokens than a batch: long prompts go in chunks."""
        in_chunks = self._options.prefill_chunking and self._device == "cpu"
        step = min(max_prefill, _CPU_STEP_TOKENS) if in_chunks else max_prefill
        if step < max_prefill:
            reason = "longer prompts in chunks: more rows run no faster here, and others would wait"
        else:
            reason = "max_batch_prefill_tokens"
        self._notes.decide("max_step_tokens", step, reason)
        return step

    def _max_sequences(self) -> int:
        """Return how many sequences may be in the engine at once."""
        options = self._options
        return options.max_batch_size or options.max_concurrent_requests * options.max_best_of

    def _describe_cache(
        self, num_cache_blocks: int, num_fitting_blocks: int, max_batch_total: int
    ) -> None:
        cache_bytes = num_cache_blocks * self._memory.block_bytes
        when = "taken as it is used"
        if self._device == "cuda":
            when = "or less, once the model has run"
        self._notes.decide(
            "KV cache",
            f"{num_cache_blocks} blocks",
            f"of {self._memory.block_size} tokens, {show_bytes(cache_bytes)}; {when}",
        )
        if num_cache_blocks == num_fitting_blocks:
            share = self._options.tgi_wiggle_room
            available = show_bytes(self._memory.granted_bytes)
            reason = f"{share:.0%} of what the weights leave free of {available}"
        elif max_batch_total == self._options.max_batch_total_tokens:
            reason = "asked for"
        else:
            reason = "what the other limits can use"
        self._notes.decide("max_batch_total_tokens", max_batch_total, reason)
