"""The Llama family: Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen3.

They differ in biases, head norms, windows and rotary scaling, which the config carries, so one
wiring serves them all. Touvron et al., Llama 2, arXiv:2307.09288.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.tensor_names import EMBEDDING, FINAL_NORM, HEAD
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.layers.context import ForwardContext
from tgi_cli.runtime.layers.embedding import PlainEmbedding, tied_embedding
from tgi_cli.runtime.layers.head import Scores, output_head
from tgi_cli.runtime.layers.norm import RMSNorm
from tgi_cli.runtime.models.blocks import DecoderLayer, DecoderStack
from tgi_cli.runtime.models.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


class Llama:
    def __init__(self, config: ModelConfig, weights: Weights, backend: AttentionBackend) -> None:
        # The largest first: packing needs the tensor twice, and now nothing else is there yet.
        is_tied = config.tie_word_embeddings
        placement = weights.placement
        self._head = output_head(weights.get_matrix(EMBEDDING if is_tied else HEAD), placement)
        self._embedding = (
            tied_embedding(self._head, lambda: weights.get(EMBEDDING), placement)
            if is_tied
            else PlainEmbedding(weights.get(EMBEDDING), placement)
        )
        layers = [
            DecoderLayer(config, weights, index, backend) for index in range(config.num_layers)
        ]
        final_norm = RMSNorm(weights.get(FINAL_NORM), config.rms_norm_eps, placement)
        self._stack = DecoderStack(config, layers, final_norm)

    @property
    def num_bytes(self) -> int:
        return self._stack.num_bytes + self._embedding.num_bytes + self._head.num_bytes

    def forward(self, token_ids: Tensor, context: ForwardContext) -> Tensor:
        """Return the final hidden states [N, hidden] of the wanted ones of `token_ids` [T]."""
        return self._stack(self._embedding(token_ids), context)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [N, V] scores for rows `hidden` [N, hidden], valid until the next call."""
        return self._head(hidden)

    def scores(self, hidden: Tensor) -> Scores:
        """Return the same scores and the best of each row."""
        return self._head.scores(hidden)
