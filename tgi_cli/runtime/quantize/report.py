"""What a quantised model is worth: figures, the bounds that refuse it, and JSON.

A figure that nobody measured is None in `report.json` and "not measured" where people read it.
"""

from __future__ import annotations

import math

import msgspec

from tgi_cli.errors import QualityError
from tgi_cli.runtime.quantize.work_folder import LayerRecord

_BROKEN_KL = 3.0  # nats; a mean above it is no rounding error
_MUCH_WORSE, _SMALL_KL = 2.0, 0.02  # than plain rounding: a factor, and nats that don't matter


class Greedy(msgspec.Struct, frozen=True, kw_only=True):
    num_prompts: int
    num_identical: int  # continuations that are the same to the last token
    same_tokens: float  # share before the first difference


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Against the original, on held-out text."""

    num_tokens: int
    perplexity: float
    original_perplexity: float
    mean_kl: float  # nats
    p99_kl: float
    top1: float  # share
    greedy: Greedy | None

    @property
    def perplexity_increase(self) -> float:
        """The growth of perplexity, as a share."""
        return self.perplexity / self.original_perplexity - 1


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two models. Speeds are of the machine that measured, one request at a time."""

    file_bytes: int  # of all tensors
    memory_bytes: int | None = None  # of the weights when they are served
    load_s: float | None = None
    decode_tokens_per_s: float | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a model and its original."""

    quality: Quality
    rounding: Quality | None  # plain rounding to the same grid; None: not measured
    before: Side
    after: Side


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What `--evaluate` alone finds out."""

    tgi_version: str
    model: str
    against: str
    evaluation_text: str
    quality: Quality
    before: Side
    after: Side

    def json(self) -> bytes:
        return _json(self)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of `report.json`. `load_s` and `decode_tokens_per_s` alone differ from run to run."""

    tgi_version: str
    model: str
    source_sha256: dict[str, str]
    recipe: dict[str, str | int | float | bool | None]
    calibration: str | None  # what it was calibrated on; None: on nothing
    num_calibration_tokens: int
    num_threads: int
    device: str
    evaluation_text: str | None
    quality: Quality | None
    rounding: Quality | None  # plain rounding to the same grid
    before: Side
    after: Side
    layers: list[LayerRecord]

    def json(self) -> bytes:
        return _json(self)


def _json(report: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def check_bounds(
    quality: Quality,
    rounding: Quality | None = None,
    *,
    max_kl: float | None,
    max_ppl_increase: float | None,
) -> None:
    """Refuse a model that isn't worth its bound, or that is broken.

    Without a bound of the user's, a model is broken that is much further from its original than
    plain rounding (where that was measured), or than any model is that is of use.

    Raises:
        QualityError: says which figure, and the bound.
    """
    figures = (quality.perplexity, quality.mean_kl, quality.p99_kl)
    if not all(map(math.isfinite, figures)):
        raise QualityError(
            "The quantised model computes numbers that aren't finite: its weights are broken."
        )
    bound = _BROKEN_KL if max_kl is None else max_kl
    if quality.mean_kl > bound:
        told = "--max-kl" if max_kl is not None else "what any usable model keeps to"
        raise QualityError(
            f"The mean KL divergence to the original is {quality.mean_kl:.4g} nats, above {told}, "
            f"{bound:g}.",
            hint="Use more bits, smaller groups or awq+gptq; --max-kl sets another bound.",
        )
    if max_kl is None and rounding is not None:
        worst = _MUCH_WORSE * rounding.mean_kl + _SMALL_KL
        if quality.mean_kl > worst:
            raise QualityError(
                f"The mean KL divergence to the original is {quality.mean_kl:.4g} nats; plain "
                f"rounding has {rounding.mean_kl:.4g}: something is wrong with this result.",
                hint="Calibrate on text like the model's own; --max-kl sets another bound.",
            )
    if max_ppl_increase is not None and quality.perplexity_increase > max_ppl_increase:
        raise QualityError(
            f"Perplexity grows by {quality.perplexity_increase:.2%}, from "
            f"{quality.original_perplexity:.4g} to {quality.perplexity:.4g}; --max-ppl-increase "
            f"allows {max_ppl_increase:.2%}.",
            hint="Use more bits, smaller groups or awq+gptq.",
        )
