"""The likeliest token of each row of scores, and its log-probability.

    id[n] = the first v with the highest logits[n, v]
    logprob[n] = logits[n, id] - log(sum_v exp(logits[n, v]))

logits: [N, V] fp32; id: [N] int64; logprob: [N] fp32, NaN where the row holds a NaN or plus
infinity. Reads each row twice, in the cache, and writes nothing of its size; a row's bits
depend on the row alone. Native (`cpu.c`) where it was built.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels import native

from . import reference


def best_token(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids [N] and log-probabilities [N] of `logits` [N, V]."""
    if not native.is_available() or logits.stride(1) != 1:
        return reference.best_token(logits)
    num_rows, num_columns = logits.shape
    ids = torch.empty(num_rows, dtype=torch.int64)
    logprobs = torch.empty(num_rows)
    pointer, size = native.Pointer, native.Int
    native.function("tgi_best_token", pointer, size, size, size, pointer, pointer)(
        logits.data_ptr(),
        logits.stride(0),
        num_rows,
        num_columns,
        ids.data_ptr(),
        logprobs.data_ptr(),
    )
    return ids, logprobs
