"""What a request may ask for: every check of spec/http-api.md section 6.4, in its order and with
its text.

`check_stream_only` comes before the permit, `check_parameters` after it and before tokenizing,
`check_head` after a part of that, `fit_lengths` after all of it. What this build doesn't do is
refused by name, never ignored.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence, Sized

import msgspec

from tgi_cli.errors import ValidationError
from tgi_cli.runtime.config.resolved import RequestLimits
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.types import SamplingParams

# TGI checks a request's length for its first scheduling chunk only; longer ones end at the limit.
_CHECKED_NEW_TOKENS = 1024


class CheckedParameters(msgspec.Struct, frozen=True):
    """Parameters within their ranges, in the engine's terms."""

    sampling: SamplingParams
    stop: list[str]
    truncate: int | None  # tokens
    max_new_tokens: int | None  # None: as many as fit

    @property
    def shown_seed(self) -> int | None:
        return self.sampling.seed if self.sampling.do_sample else None


def check_stream_only(parameters: GenerateParameters) -> None:
    if parameters.best_of not in (None, 1):
        raise ValidationError("`best_of` != 1 is not supported when streaming tokens")
    if parameters.decoder_input_details:
        raise ValidationError(
            "`decoder_input_details` == true is not supported when streaming tokens"
        )


def check_best_of(best_of: int, limits: RequestLimits) -> None:
    if limits.max_best_of == 1:
        raise ValidationError("`best_of` != 1 is not allowed for this endpoint")
    if best_of > limits.max_best_of:
        raise ValidationError(
            f"`best_of` must be > 0 and <= {limits.max_best_of}. Given: {best_of}"
        )


def check_parameters(
    parameters: GenerateParameters, inputs: Sized, limits: RequestLimits
) -> CheckedParameters:
    """Check everything that doesn't need the prompt's length. Raises `ValidationError`."""
    sampling = _check_sampling(parameters)
    if parameters.max_new_tokens == 0:
        raise ValidationError("`max_new_tokens` must be strictly positive")
    stop = [*(parameters.stop or ()), *(parameters.stop_sequences or ())]
    if len(stop) > limits.max_stop_sequences:
        raise ValidationError(
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(stop)}"
        )
    best_of = parameters.best_of or 1
    if best_of > 1 and parameters.seed is not None:
        raise ValidationError("`seed` must not be set when `best_of` > 1")
    _check_unsupported(parameters, limits)
    if not inputs:
        raise ValidationError("`inputs` cannot be empty")
    truncate = parameters.truncate
    if truncate is not None and not 1 <= truncate <= limits.max_input_tokens:
        raise ValidationError(
            "`truncate` must be strictly positive and less than "
            f"{limits.max_input_tokens}. Given: {truncate}"
        )
    return CheckedParameters(sampling, stop, truncate, parameters.max_new_tokens)


def _check_sampling(parameters: GenerateParameters) -> SamplingParams:
    p = parameters
    if (p.best_of or 1) > 1 and not _asks_to_sample(p):
        raise ValidationError("you must use sampling when `best_of` is > 1")
    temperature = _number(p.temperature, 1.0)
    if not temperature > 0.0 or math.isinf(temperature):
        raise ValidationError("`temperature` must be strictly positive")
    repetition_penalty = _number(p.repetition_penalty, 1.0)
    if not repetition_penalty > 0.0 or math.isinf(repetition_penalty):
        raise ValidationError("`repetition_penalty` must be strictly positive")
    frequency_penalty = _number(p.frequency_penalty, 0.0)
    if not -2.0 <= frequency_penalty <= 2.0:
        raise ValidationError("`frequency_penalty` must be >= -2.0 and <= 2.0")
    top_p = _number(p.top_p, 1.0)
    if not 0.0 < top_p <= 1.0:  # TGI refuses 1.0, which clients send to mean "off"
        raise ValidationError("`top_p` must be > 0.0 and < 1.0")
    typical_p = _number(p.typical_p, 1.0)
    if not 0.0 < typical_p <= 1.0:
        raise ValidationError("`typical_p` must be > 0.0 and < 1.0")
    if p.top_k is not None and p.top_k <= 0:
        raise ValidationError("`top_k` must be strictly positive")
    top_k = p.top_k or 0
    samples = temperature != 1.0 or top_k != 0 or top_p < 1.0 or typical_p < 1.0
    return SamplingParams(
        do_sample=bool(p.do_sample) or samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
        frequency_penalty=frequency_penalty,
        seed=secrets.randbits(64) if p.seed is None else p.seed,
    )


def _number(value: float | None, default: float) -> float:
    return default if value is None else value


def _asks_to_sample(p: GenerateParameters) -> bool:
    fields = (p.temperature, p.top_k, p.top_p, p.typical_p)
    return bool(p.do_sample) or any(field is not None for field in fields)


def _check_unsupported(p: GenerateParameters, limits: RequestLimits) -> None:
    top_n_tokens = p.top_n_tokens or 0
    if top_n_tokens > limits.max_top_n_tokens:
        raise ValidationError(
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {top_n_tokens}"
        )
    asked = {
        "top_n_tokens": top_n_tokens > 0,
        "decoder_input_details": bool(p.decoder_input_details),
        "grammar": p.grammar is not None,
        "watermark": bool(p.watermark),
        "adapter_id": p.adapter_id is not None,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise unsupported(name)


def unsupported(name: str) -> ValidationError:
    """Return the error for a field that this version knows and can't do."""
    return ValidationError(f"`{name}` is not supported by this version; leave it out")


def fit_lengths(
    prompt_ids: Sequence[int], checked: CheckedParameters, limits: RequestLimits
) -> tuple[list[int], int]:
    """Return the prompt after truncation, and how many tokens may be generated.

    Raises:
        ValidationError: prompt too long, alone or with the new tokens that are checked.
    """
    ids = list(prompt_ids)
    if checked.truncate is not None:
        ids = ids[-checked.truncate :]
    num_input = len(ids)
    room = limits.max_total_tokens - num_input
    asked = max(1, room) if checked.max_new_tokens is None else checked.max_new_tokens
    new = min(asked, _CHECKED_NEW_TOKENS)
    if num_input + new > limits.max_total_tokens:
        raise _too_long(str(num_input), new, limits)
    if num_input > limits.max_input_tokens:
        raise ValidationError(
            f"`inputs` must have less than {limits.max_input_tokens} tokens. Given: {num_input}"
        )
    return ids, min(asked, room)


def heads_to_count(text: str, checked: CheckedParameters, limits: RequestLimits) -> Iterator[str]:
    """Yield beginnings of a text that may be far too long; `check_head` takes their lengths.

    To count the tokens of megabytes only to refuse them would take a second. None where all of
    them must be counted anyway.
    """
    if checked.truncate is None:
        for characters_per_token in (8, 64):
            length = characters_per_token * limits.max_total_tokens
            if len(text) > 2 * length:
                yield text[:length]


def check_head(num_tokens: int, checked: CheckedParameters, limits: RequestLimits) -> None:
    """Refuse a text of which a beginning has `num_tokens`, if those are too many already.

    The margin is for the beginning's last word, which the text would have split otherwise.
    """
    if num_tokens > limits.max_total_tokens + limits.max_total_tokens // 4 + 16:
        new = min(checked.max_new_tokens or 1, _CHECKED_NEW_TOKENS)
        raise _too_long(f"more than {num_tokens}", new, limits)


def _too_long(num_input: str, num_new: int, limits: RequestLimits) -> ValidationError:
    return ValidationError(
        f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
        f"Given: {num_input} `inputs` tokens and {num_new} `max_new_tokens`"
    )
