"""`Kernel` of tiles.h: the types of weights that tiles multiply."""

from __future__ import annotations

import torch

PLAIN = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
INT8 = {torch.float32: 3, torch.float16: 5}  # by the type of the scales
INT4 = {torch.float32: 4, torch.float16: 6}
FP8 = 7  # e4m3, fp32 scales
TABLE4 = 8  # four bits that point into a table of 16, fp32 scales
