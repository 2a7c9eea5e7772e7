"""The slow twin of `best_token`."""

from __future__ import annotations

import torch
from torch import Tensor


def best_token(logits: Tensor) -> tuple[Tensor, Tensor]:
    ids = (logits == logits.amax(-1, keepdim=True)).int().argmax(-1)
    logprobs = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, None]).squeeze(-1)
    return ids, logprobs
