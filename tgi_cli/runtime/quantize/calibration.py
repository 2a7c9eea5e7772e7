"""Windows of token ids, from the texts that come with the package or a user's own.

Windows lie end to end in the text and don't overlap; which of them are taken, and in which order,
follows from the seed alone. Each begins as a prompt does, with the tokenizer's first token where it
has one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.text.tokenizer import Tokenizer

_TEXTS = Path(__file__).with_name("texts")


def calibration_text() -> str:
    """Return the text to calibrate on where the user names none: documentation and prose."""
    return (_TEXTS / "calibration.txt").read_text(encoding="utf-8")


def held_out_text() -> str:
    """Return the text to measure on, from the same sources; nothing of it is in the other."""
    return (_TEXTS / "held_out.txt").read_text(encoding="utf-8")


def draw_windows(
    tokenizer: Tokenizer, text: str, num_samples: int, sequence_length: int, seed: int
) -> Tensor:
    """Return `num_samples` windows of `sequence_length` tokens, int64 [S, L].

    Raises:
        ArgumentError: the text is too short for so many, or the window for anything.
    """
    start = tokenizer.encode("", add_special_tokens=True)[:1]
    num_new = sequence_length - len(start)
    if num_new < 1:
        raise ArgumentError(f"--sequence-length {sequence_length}: a window needs 2 tokens.")
    ids = tokenizer.encode(text, add_special_tokens=False)
    num_windows = len(ids) // num_new
    if num_windows < num_samples:
        raise ArgumentError(
            f"The text has {len(ids):,} tokens, but {num_samples} windows of {sequence_length} "
            f"need {num_samples * num_new:,}.",
            hint="Give a longer text, or lower --num-samples or --sequence-length.",
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(num_windows, generator=generator)[:num_samples]
    windows = torch.tensor(ids[: num_windows * num_new]).view(num_windows, num_new)[chosen]
    return torch.cat((torch.tensor(start).expand(num_samples, -1).long(), windows), dim=1)
