"""What a model takes of the memory, and how many KV blocks fit into the rest.

Spec: launcher-options.md section 4.3, scheduling.md section 15.
"""

from __future__ import annotations

from tgi_cli.errors import CapacityError
from tgi_cli.runtime.config.facts import HardwareFacts, ModelFacts
from tgi_cli.runtime.config.model_config import Dtype
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.quantization.choice import Choice
from tgi_cli.runtime.config.start_notes import show_bytes
from tgi_cli.runtime.config.stored_tensors import weights_bytes

BLOCK_SIZE = 32  # tokens; the CPU kernels know no other
_BYTES: dict[Dtype, int] = {"float16": 2, "bfloat16": 2, "float32": 4}
_USABLE_SHARE = 0.95  # of the memory that the system calls available


class MemoryPlan:
    """Sizes in bytes, known before anything is loaded."""

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
    def kv_cache_dtype(self) -> Dtype:
        asked = self._options.kv_cache_dtype
        if asked is None:
            return self.dtype
        assert asked in _BYTES, asked  # `check_options` has refused the others
        return asked

    @property
    def weights_bytes(self) -> int:
        has_native_kernels = self._hardware.has_native_kernels
        if self._choice.keeps_grid and has_native_kernels:
            config = self._model.config
            # A head of its own leaves the embedding, which is read as it is, in plain numbers.
            num_plain = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
            return self._model.weights.num_bytes_on_grid + num_plain * _BYTES[self.dtype]
        dtype: Dtype = self.dtype if has_native_kernels else "float32"
        return weights_bytes(
            self._model.config, self._choice.quantization, _BYTES[dtype], packs=has_native_kernels
        )

    @property
    def block_bytes(self) -> int:
        config = self._model.config
        value_size = num_blocks(config.head_dim) * BLOCK_SIZE  # values lie in panels that wide
        values = config.num_layers * config.num_kv_heads * (config.head_dim + value_size)
        return values * _BYTES[self.kv_cache_dtype] * BLOCK_SIZE

    @property
    def granted_bytes(self) -> int:
        """What the system has available, or the share of it that was asked for."""
        available = self._hardware.available_memory_bytes
        return int(available * self._options.cuda_memory_fraction)

    def blocks_that_fit(self) -> int:
        """Return how many KV blocks fit beside the weights.

        Raises:
            CapacityError: not one does.
        """
        free_bytes = self.granted_bytes * _USABLE_SHARE - self.weights_bytes
        num_fitting = int(free_bytes * self._options.tgi_wiggle_room // self.block_bytes)
        if num_fitting < 1:
            raise CapacityError(
                f"{self._model.model_id} needs {show_bytes(self.weights_bytes)} for its weights "
                f"and room for a KV cache; {show_bytes(self.granted_bytes)} of memory are "
                "available",
                hint="Free memory, or serve a smaller model.",
            )
        return num_fitting


def num_blocks(num_tokens: int) -> int:
    """Return how many blocks hold that many tokens."""
    return -(-num_tokens // BLOCK_SIZE)
