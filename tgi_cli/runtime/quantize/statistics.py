"""What solvers know of a projection's inputs: products summed over calibration tokens.

T tokens, K input features, N output features. Everything is a mean over tokens, so that figures
don't depend on how much text there was.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.errors import CorruptModelError


class InputStatistics:
    """Means over the tokens added so far.

    With x [K] the projection's input under the layers quantised so far, x' the same in the original
    model, and d [N] what the original's residual stream is ahead of ours:
    gram: x x^T [K, K]; magnitude: |x| [K]; cross: x' x^T [K, K]; lag: d x^T [N, K].
    """

    def __init__(self, num_in: int, device: torch.device) -> None:
        self._num_tokens = 0
        self._gram = torch.zeros(num_in, num_in, device=device)
        self._magnitude = torch.zeros(num_in, device=device)
        self._cross: Tensor | None = None
        self._lag: Tensor | None = None

    def add(self, x: Tensor, original: Tensor | None = None, ahead: Tensor | None = None) -> None:
        """Take in rows x [..., K], and of the same tokens x' [..., K] and d [..., N]."""
        rows = x.flatten(0, -2)
        self._num_tokens += len(rows)
        self._gram.addmm_(rows.T, rows)
        self._magnitude += rows.abs().sum(0)
        if original is not None:
            product = original.flatten(0, -2).T @ rows
            self._cross = product if self._cross is None else self._cross.add_(product)
        if ahead is not None:
            product = ahead.flatten(0, -2).T @ rows
            self._lag = product if self._lag is None else self._lag.add_(product)

    @property
    def gram(self) -> Tensor:
        return self._gram / self._num_tokens

    @property
    def magnitude(self) -> Tensor:
        return self._magnitude / self._num_tokens

    @property
    def cross(self) -> Tensor | None:
        return None if self._cross is None else self._cross / self._num_tokens

    @property
    def lag(self) -> Tensor | None:
        return None if self._lag is None else self._lag / self._num_tokens


def check_finite(tensor: Tensor, what: str) -> None:
    """Check that `tensor` holds neither NaN nor infinity.

    Raises:
        CorruptModelError: says what isn't finite.
    """
    if not tensor.isfinite().all():
        raise CorruptModelError(
            f"{what}: not every number is finite.",
            hint="The weights are damaged, or overflow the type that they are stored in.",
        )
