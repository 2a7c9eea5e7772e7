"""What changes the scores of a row before a token is chosen, in place and on the device.

    repetition   s -> s / r if s > 0 else s * r       ids of prompt and output
    frequency    s -> s - f * count                   ids of the output
    presence     s -> s - p                           ids of the output
    bias         s -> s + bias[id]
    bitmask      s -> -inf                            ids whose bit isn't set
    forbid       s -> -inf                            ends of sequence, unless nothing else is left

logits: [N, V] fp32. A row asks by its settings (`kernels.sampling.settings`); `runtime/engine/
sampling/logits.py` has the same steps for one row on a CPU, and says where they come from.

Counts are [R, V] int16: 2 * (times in the output) + (whether in the prompt), at most 16,383 times.
A penalised row so reads 2 bytes for each score of 4, and a step adds one number to each row,
without the host. Lists of ids would be shorter for short texts, but to find the place of a new
token in one the device would have to search it, and 128 K of context make 1 MB of list, where
a vocabulary of 128 K makes 0.25 MB of counts.
"""

from __future__ import annotations

import torch

MAX_COUNT = (1 << 14) - 1
LARGEST = torch.finfo(torch.float32).max / 4  # what an extreme penalty gives, in place of infinity
