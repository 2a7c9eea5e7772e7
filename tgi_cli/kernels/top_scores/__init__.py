"""The best scores of a row, with ties, for the log-probabilities that a client asks for.

    ids, scores   the n highest that may be picked, and up to 64 more that tie with the last

In no order but that those above the n-th come first, ties in ascending id order: the host sorts the
few. A row says how many it wants (`Field.TOP_N`). `kernel.py` is Triton, on the cuts of
`kernels.score_cuts`; `best_scores` of `runtime/engine/sampling/logits.py` is its slow twin.
"""

from __future__ import annotations

MAX_TIES = 64  # beyond the n: a flat row ties from end to end
