"""What the runner asks of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tgi_cli.runtime.layers.context import ForwardContext
from tgi_cli.runtime.layers.head import Scores

if TYPE_CHECKING:
    from torch import Tensor


class Model(Protocol):
    @property
    def num_bytes(self) -> int:
        """Bytes of weights in memory."""
        ...

    def forward(self, token_ids: Tensor, context: ForwardContext) -> Tensor:
        """Return the final hidden states [N, hidden] of the wanted ones of `token_ids` [T]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores [N, V] of `hidden` [N, hidden], valid until the next call."""
        ...

    def scores(self, hidden: Tensor) -> Scores:
        """Return the same scores and the best of each row."""
        ...
