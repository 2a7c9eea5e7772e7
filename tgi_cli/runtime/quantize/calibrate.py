"""The text that a model is calibrated on, and the text that it is measured on, as windows."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.quantize import QuantizeRecipe
from tgi_cli.runtime.hub.json_files import read_text
from tgi_cli.runtime.quantize.calibration import calibration_text, draw_windows, held_out_text
from tgi_cli.runtime.quantize.evaluate import EvaluationText, evaluation_text
from tgi_cli.runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

TEXT_NAME = "general"  # what ships: texts/README.md has the sources
_SEED = 0  # of the windows to measure on: always the same ones


@dataclass(frozen=True, slots=True)
class Calibration:
    name: str
    windows: Tensor  # [S, L] token ids
    sha256: str  # of the ids


def calibrate(tokenizer: Tokenizer, recipe: QuantizeRecipe) -> Calibration | None:
    """Return what is calibrated on; None if the method needs nothing.

    Raises:
        ArgumentError: no such text, or too short a one.
    """
    if not recipe.is_calibrated:
        return None
    name, text = _named_text(recipe.calibration)
    windows = _drawn(name, tokenizer, text, recipe.num_samples, recipe.sequence_length, recipe.seed)
    ids = windows.numpy().astype("<i8").tobytes()
    return Calibration(name, windows, hashlib.sha256(ids).hexdigest())


def check_length(sequence_length: int, config: ModelConfig) -> None:
    """Raises `ArgumentError` if a window is longer than the model's context."""
    limit = config.max_position_embeddings
    if sequence_length > limit:
        raise ArgumentError(
            f"--sequence-length {sequence_length}: the model has a context of {limit} tokens.",
            hint=f"Use --sequence-length {limit}.",
        )


def held_out(tokenizer: Tokenizer, num_samples: int, sequence_length: int) -> EvaluationText:
    """Return what a model is measured on: the same for every model with this tokenizer."""
    text = held_out_text()
    windows = _drawn("held-out text", tokenizer, text, num_samples, sequence_length, _SEED)
    return evaluation_text(f"{TEXT_NAME}, held out", windows.tolist())


def _named_text(asked: str | None) -> tuple[str, str]:
    """Return a text and what it is called."""
    if asked in (None, TEXT_NAME):
        return TEXT_NAME, calibration_text()
    # The functions of `os.path` answer where those of `Path` raise: no such user, a name too long.
    path = Path(os.path.expanduser(asked))
    if not os.path.isfile(path):
        raise ArgumentError(
            f"--calibration {path.name[:200]}: no such file, and no text that ships ({TEXT_NAME})."
        )
    return path.name, read_text(path)


def _drawn(
    name: str, tokenizer: Tokenizer, text: str, num_samples: int, length: int, seed: int
) -> Tensor:
    """Return windows of a text; an error about it says which text."""
    try:
        return draw_windows(tokenizer, text, num_samples, length, seed)
    except ArgumentError as exc:
        hint = "Give a longer text, fewer samples or shorter sequences."
        raise ArgumentError(f"{name}: {exc.message}", hint=hint) from exc
