"""What a model takes of the memory, and how many KV blocks fit into the rest.

Spec: launcher-options.md section 4.3, scheduling.md section 15.
"""

from __future__ import annotations

from typing import Protocol

from tgi_cli.errors import CapacityError
from tgi_cli.runtime.config.device import gpu_dtype
from tgi_cli.runtime.config.facts import GpuFacts, HardwareFacts, ModelFacts
from tgi_cli.runtime.config.model_config import Dtype, KvCacheDtype, ModelConfig
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.quantization.choice import Choice
from tgi_cli.runtime.config.start_notes import show_bytes
from tgi_cli.runtime.config.stored_tensors import weights_bytes

BLOCK_SIZE = 32  # tokens; our kernels know no other
_BYTES: dict[KvCacheDtype, int] = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "fp8_e4m3fn": 1,
    "fp8_e5m2": 1,
}
_USABLE_SHARE = 0.95  # of the memory that the system calls available


class MemoryPlan(Protocol):
    """Sizes in bytes, known before anything is loaded."""

    @property
    def dtype(self) -> Dtype: ...
    @property
    def dtype_reason(self) -> str: ...
    @property
    def kv_cache_dtype(self) -> KvCacheDtype: ...
    @property
    def weights_bytes(self) -> int: ...
    @property
    def block_size(self) -> int:
        """Tokens."""
        ...

    @property
    def block_bytes(self) -> int: ...
    @property
    def granted_bytes(self) -> int:
        """What may be used, weights included."""
        ...

    def blocks_that_fit(self) -> int:
        """Return how many KV blocks fit beside the weights.

        Raises:
            CapacityError: not one does.
        """
        ...


class CpuMemoryPlan:
    """The machine's memory."""

    block_size = BLOCK_SIZE

    def __init__(
        self,
        options: ServeOptions,
        model: ModelFacts,
        hardware: HardwareFacts,
        choice: Choice,
    ) -> None:
        self._choice = choice
        self._options = options
        self._model = model
        self._hardware = hardware

    @property
    def dtype(self) -> Dtype:
        return self._options.dtype or self._model.config.checkpoint_dtype

    @property
    def dtype_reason(self) -> str:
        asked = "asked for" if self._options.dtype else "the checkpoint's own"
        return f"{asked}; computed in float32"

    @property
    def kv_cache_dtype(self) -> KvCacheDtype:
        return self._options.kv_cache_dtype or self.dtype

    @property
    def weights_bytes(self) -> int:
        has_native_kernels = self._hardware.has_native_kernels
        if self._choice.keeps_grid and has_native_kernels:
            # A head of its own leaves the embedding, which is read as it is, in plain numbers.
            has_embedding = not self._model.config.tie_word_embeddings
            return _bytes_on_grid(self._model, _BYTES[self.dtype], has_embedding=has_embedding)
        dtype: Dtype = self.dtype if has_native_kernels else "float32"
        return weights_bytes(
            self._model.config, self._choice.quantization, _BYTES[dtype], packs=has_native_kernels
        )

    @property
    def block_bytes(self) -> int:
        config = self._model.config
        value_size = num_blocks(config.head_dim) * BLOCK_SIZE  # values lie in panels that wide
        return BLOCK_SIZE * _token_bytes(config, config.head_dim + value_size, self.kv_cache_dtype)

    @property
    def granted_bytes(self) -> int:
        """What the system has available, or the share of it that was asked for."""
        available = self._hardware.available_memory_bytes
        return int(available * self._options.cuda_memory_fraction)

    def blocks_that_fit(self) -> int:
        free_bytes = self.granted_bytes * _USABLE_SHARE - self.weights_bytes
        num_fitting = int(free_bytes * self._options.tgi_wiggle_room // self.block_bytes)
        if num_fitting < 1:
            raise too_little_memory(self._model.model_id, self)
        return num_fitting


class GpuMemoryPlan:
    """A GPU's memory: a bound before the model is loaded, and then what the engine has measured."""

    def __init__(
        self,
        options: ServeOptions,
        model: ModelFacts,
        gpu: GpuFacts,
        choice: Choice,
        block_size: int = BLOCK_SIZE,
        num_measured_blocks: int | None = None,
    ) -> None:
        self.block_size = block_size
        self._options = options
        self._model = model
        self._gpu = gpu
        self._choice = choice
        self._num_measured_blocks = num_measured_blocks

    @property
    def dtype(self) -> Dtype:
        return gpu_dtype(self._options, self._model.config)

    @property
    def dtype_reason(self) -> str:
        if self._options.dtype:
            return "asked for"
        if self._model.config.checkpoint_dtype == self.dtype:
            return "the checkpoint's own"
        return "the GPU's kernels take 16 bits; the checkpoint is float32"

    @property
    def kv_cache_dtype(self) -> KvCacheDtype:
        return self._options.kv_cache_dtype or self.dtype

    @property
    def weights_bytes(self) -> int:
        if self._choice.keeps_grid:
            # Codes lie in an order of their own there, so a tied embedding is beside its head.
            return _bytes_on_grid(self._model, _BYTES[self.dtype], has_embedding=True)
        return weights_bytes(
            self._model.config, self._choice.quantization, _BYTES[self.dtype], packs=True
        )

    @property
    def block_bytes(self) -> int:
        config = self._model.config
        return self.block_size * _token_bytes(config, 2 * config.head_dim, self.kv_cache_dtype)

    @property
    def granted_bytes(self) -> int:
        return int(self._gpu.total_bytes * self._options.cuda_memory_fraction)

    def blocks_that_fit(self) -> int:
        """As the protocol's; a bound until it was measured, since a step needs memory, too."""
        if self._num_measured_blocks is not None:
            return self._num_measured_blocks
        if not self.holds_weights:
            raise too_little_memory(self._model.model_id, self)
        free_bytes = self.granted_bytes - self.weights_bytes
        return max(1, int(free_bytes * self._options.tgi_wiggle_room // self.block_bytes))

    @property
    def holds_weights(self) -> bool:
        """Whether a block fits beside the weights."""
        return self.weights_bytes + self.block_bytes <= self.granted_bytes


def too_little_memory(model_id: str, memory: MemoryPlan) -> CapacityError:
    return CapacityError(
        f"{model_id} needs {show_bytes(memory.weights_bytes)} for its weights "
        f"and room for a KV cache; {show_bytes(memory.granted_bytes)} of memory are "
        "available",
        hint="Free memory, or serve a smaller model.",
    )


def num_blocks(num_tokens: int, block_size: int = BLOCK_SIZE) -> int:
    """Return how many blocks hold that many tokens."""
    return -(-num_tokens // block_size)


def _token_bytes(config: ModelConfig, head_values: int, dtype: KvCacheDtype) -> int:
    """Return the bytes of a token, for which each head keeps `head_values` numbers."""
    return config.num_layers * config.num_kv_heads * head_values * _BYTES[dtype]


def _bytes_on_grid(model: ModelFacts, plain_bytes: int, *, has_embedding: bool) -> int:
    """Return the bytes of the grids, and of an embedding in plain numbers."""
    num_plain = model.config.vocab_size * model.config.hidden_size if has_embedding else 0
    return model.weights.num_bytes_on_grid + num_plain * plain_bytes
