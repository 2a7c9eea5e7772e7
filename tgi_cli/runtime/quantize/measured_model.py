"""A model as `tgi serve` runs it, in this process, for its quality and speed to be measured.

The served weights, kernels and KV cache; no scheduler, since what is computed is known beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from tgi_cli.kernels.paged_attention import BLOCK_SIZE, Span, choose
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.tensor_names import EMBEDDING, HEAD
from tgi_cli.runtime.hub.locate import LocatedModel
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.layers.context import ForwardContext
from tgi_cli.runtime.layers.kv_cache import KVCache
from tgi_cli.runtime.layers.linear import Projection
from tgi_cli.runtime.layers.rope import RotaryTable
from tgi_cli.runtime.models.base import Model
from tgi_cli.runtime.models.loader import load_model
from tgi_cli.runtime.models.registry import MODELS
from tgi_cli.runtime.models.weights import TORCH_DTYPES, Weights
from tgi_cli.runtime.quantize.grid import Grid, round_to_grid
from tgi_cli.runtime.quantize.solver import PROJECTIONS

if TYPE_CHECKING:
    from torch import Tensor

Load = Callable[[AttentionBackend], Model]


class MeasuredModel:
    """`max_tokens` is the most that one call of `hidden`, or all sequences of `greedy`, hold."""

    def __init__(self, config: ModelConfig, load: Load, max_tokens: int) -> None:
        self._config = config
        self._attention = choose(config.num_heads, config.num_kv_heads, config.head_dim)
        began = time.perf_counter()
        with torch.inference_mode():
            self._model = load(self._attention)
        self.load_s = time.perf_counter() - began
        self._rotary = RotaryTable(
            config.head_dim, max_tokens, config.rope_theta, config.rope_scaling
        )
        self._kv_cache = KVCache(
            self._attention,
            num_layers=config.num_layers,
            num_blocks=-(-max_tokens // BLOCK_SIZE),
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            dtype=TORCH_DTYPES[config.checkpoint_dtype],
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of weights in memory."""
        return self._model.num_bytes

    def hidden(self, token_ids: list[int]) -> Tensor:
        """Return the final hidden states [T, hidden] of one sequence."""
        return self._step([token_ids], starts=[0], room=len(token_ids), wants_all=True)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores [N, V], valid until the next call."""
        with torch.inference_mode():
            return self._model.logits(hidden)

    def greedy(self, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
        """Return the `num_tokens` most likely tokens after each prompt, all in one batch."""
        room = room_for(max(map(len, prompts)) + num_tokens)
        outputs: list[list[int]] = [[] for _ in prompts]
        starts, chunks = [0] * len(prompts), prompts
        for _ in range(num_tokens):
            last = self._step(chunks, starts=starts, room=room, wants_all=False)
            starts = [start + len(chunk) for start, chunk in zip(starts, chunks, strict=True)]
            chunks = [[int(token)] for token in self.logits(last).argmax(-1)]
            for output, chunk in zip(outputs, chunks, strict=True):
                output += chunk
        return outputs

    def _step(
        self, chunks: list[list[int]], *, starts: list[int], room: int, wants_all: bool
    ) -> Tensor:
        """Compute a chunk of each sequence, which has blocks for `room` tokens."""
        num_blocks = -(-room // BLOCK_SIZE)
        tables = np.arange(len(chunks) * num_blocks).reshape(len(chunks), num_blocks)
        spans: list[Span] = []
        positions, slots, first = [], [], 0
        for row, (chunk, start) in enumerate(zip(chunks, starts, strict=True)):
            at = np.arange(start, start + len(chunk))
            spans.append(Span(first, first + len(chunk), start + len(chunk), row))
            positions.append(at)
            slots.append(tables[row, at // BLOCK_SIZE] * BLOCK_SIZE + at % BLOCK_SIZE)
            first += len(chunk)
        wanted = list(range(first)) if wants_all else [span.end - 1 for span in spans]
        with torch.inference_mode():
            cos, signed_sin = self._rotary.at(torch.from_numpy(np.concatenate(positions)))
            window = self._config.sliding_window
            attention = self._attention.plan(spans, tables, None)
            windowed = attention
            if window is not None:
                windowed = self._attention.plan(spans, tables, window)
            context = ForwardContext(
                cos=cos,
                signed_sin=signed_sin,
                slot_mapping=torch.from_numpy(np.concatenate(slots)),
                wanted=torch.tensor(wanted),
                kv_cache=self._kv_cache,
                attention=attention,
                windowed_attention=windowed,
            )
            ids = torch.tensor([token for chunk in chunks for token in chunk])
            return self._model.forward(ids, context).clone()


def room_for(num_tokens: int) -> int:
    """Return the tokens of the whole blocks that hold so many."""
    return -(-num_tokens // BLOCK_SIZE) * BLOCK_SIZE


def served(located: LocatedModel) -> Load:
    """Return how the model is loaded to be served."""
    config = located.config

    def load(attention: AttentionBackend) -> Model:
        return load_model(config, located.weights, config.checkpoint_dtype, attention)

    return load


def rounded(located: LocatedModel, grid: Grid) -> Load:
    """Return how the model is loaded with its projections rounded to the nearest of `grid`."""
    config = located.config

    def load(attention: AttentionBackend) -> Model:
        weights = _RoundedWeights(
            WeightsReader(located.weights), config, config.checkpoint_dtype, grid
        )
        return MODELS[config.family](config, weights, attention)

    return load


def load_head(located: LocatedModel) -> Projection:
    """Return the output head alone, for hidden states that were kept."""
    config = located.config
    weights = Weights(WeightsReader(located.weights), config, config.checkpoint_dtype)
    name = EMBEDDING if config.tie_word_embeddings else HEAD
    return Projection(weights.get_matrix(name))


class _RoundedWeights(Weights):
    def __init__(self, reader: WeightsReader, config: ModelConfig, dtype: str, grid: Grid) -> None:
        super().__init__(reader, config, dtype)  # type: ignore[arg-type]
        self._grid = grid

    def get_matrix(self, name: str) -> Tensor:
        weight = self.get(name)
        if any(name.endswith(f"{projection}.weight") for projection in PROJECTIONS):
            return round_to_grid(weight.float(), self._grid).dequantize()
        return weight
