"""`Kernel` of tiles.h: the types of weights that tiles multiply."""

from __future__ import annotations

import torch

PLAIN = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
CODES = {torch.int8: 4, torch.float8_e4m3fn: 5, torch.uint8: 6}
TABLE4 = 7  # uint8 that point into a table of 16
