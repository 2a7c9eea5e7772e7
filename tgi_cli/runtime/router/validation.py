"""What a request may ask for: every check of spec/http-api.md section 6.4, in its order and with
its text.

`check_stream_only` comes before the permit, `check_parameters` after it and before tokenizing,
`check_head` after a part of that, `fit_lengths` after all of it, `parse_grammar` at the end. What
this build doesn't do is refused by name, never ignored.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterator, Sequence, Sized

import msgspec

from tgi_cli.errors import ValidationError
from tgi_cli.runtime.config.resolved import RequestLimits, RouterConfig
from tgi_cli.runtime.router import grammars
from tgi_cli.runtime.router.schemas.common import float32
from tgi_cli.runtime.router.schemas.generate import GenerateParameters, GreedyParameters
from tgi_cli.runtime.text.token_bounds import TokenBounds
from tgi_cli.runtime.types import Grammar, SamplingParams

# TGI checks a request's length for its first scheduling chunk only; longer ones end at the limit.
_CHECKED_NEW_TOKENS = 1024
_MAX_BIASES = 1024
_COUNTED_CHARACTERS = 1 << 16  # of a text whose tokens are counted, whatever the limits: 30 ms
_SHOWN_CHARACTERS = 80  # of a client's text in an error
_IMAGE = re.compile(r"!\[\]\((?:https?://|data:)")  # how a text carries one


class CheckedParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters within their ranges, in the engine's terms."""

    sampling: SamplingParams
    stop: list[str]
    truncate: int | None  # tokens
    max_new_tokens: int | None  # None: as many as fit
    ignore_eos: bool = False
    top_n_tokens: int = 0
    scores_prompt: bool = False

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
    parameters: GenerateParameters, inputs: Sized, config: RouterConfig, vocab_size: int
) -> CheckedParameters:
    """Check everything that doesn't need the prompt's length. Raises `ValidationError`.

    `inputs` is the prompt, text or ids; `vocab_size` the tokenizer's.
    """
    limits = config.limits
    sampling = _check_sampling(parameters, vocab_size)
    if parameters.max_new_tokens == 0:
        raise ValidationError("`max_new_tokens` must be strictly positive")
    most = (
        limits.max_total_tokens if parameters.max_new_tokens is None else parameters.max_new_tokens
    )
    if sampling.min_tokens > most:
        raise ValidationError(
            f"`min_tokens` must be <= `max_new_tokens`. Given: {sampling.min_tokens} `min_tokens` "
            f"and {most} `max_new_tokens`"
        )
    stop = parameters.stop or parameters.stop_sequences or []
    if len(stop) > limits.max_stop_sequences:
        raise ValidationError(
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(stop)}"
        )
    best_of = parameters.best_of or 1
    if best_of > 1 and parameters.seed is not None:
        raise ValidationError("`seed` must not be set when `best_of` > 1")
    top_n_tokens = parameters.top_n_tokens or 0
    if top_n_tokens > limits.max_top_n_tokens:
        raise ValidationError(
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {top_n_tokens}"
        )
    _check_adapter(parameters.adapter_id, config)
    if not inputs:
        raise ValidationError("`inputs` cannot be empty")
    truncate = parameters.truncate
    if truncate is not None and not 1 <= truncate <= limits.max_input_tokens:
        raise ValidationError(
            "`truncate` must be strictly positive and less than "
            f"{limits.max_input_tokens}. Given: {truncate}"
        )
    return CheckedParameters(
        sampling=sampling,
        stop=stop,
        truncate=truncate,
        max_new_tokens=parameters.max_new_tokens,
        ignore_eos=bool(parameters.ignore_eos),
        top_n_tokens=top_n_tokens,
        scores_prompt=bool(parameters.decoder_input_details),
    )


def check_modality(text: str) -> None:
    """Refuse a prompt with an image in it, which a model of text would read as its address."""
    if _IMAGE.search(text):
        raise image_not_supported()


def image_not_supported() -> ValidationError:
    return ValidationError("image modality is not supported")


def _check_sampling(p: GenerateParameters, vocab_size: int) -> SamplingParams:
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
    presence_penalty = _number(p.presence_penalty, 0.0)
    if not -2.0 <= presence_penalty <= 2.0:
        raise ValidationError("`presence_penalty` must be >= -2.0 and <= 2.0")
    top_p = _number(p.top_p, 1.0)
    if not 0.0 < top_p <= 1.0:  # TGI refuses 1.0, which clients send to mean "off"
        raise ValidationError("`top_p` must be > 0.0 and < 1.0")
    typical_p = _number(p.typical_p, 1.0)
    if p.typical_p is not None and not 0.0 < typical_p < 1.0:
        raise ValidationError("`typical_p` must be > 0.0 and < 1.0")
    min_p = _number(p.min_p, 0.0)
    if not 0.0 <= min_p <= 1.0:
        raise ValidationError("`min_p` must be >= 0.0 and <= 1.0")
    if p.top_k is not None and p.top_k <= 0:
        raise ValidationError("`top_k` must be strictly positive")
    top_k = p.top_k or 0
    cuts_off = top_k != 0 or top_p < 1.0 or typical_p < 1.0 or min_p > 0.0
    samples = bool(p.do_sample) or temperature != 1.0 or cuts_off
    return SamplingParams(
        do_sample=samples and not isinstance(p, GreedyParameters),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        min_p=min_p,
        logit_bias=_check_logit_bias(p.logit_bias or {}, vocab_size),
        min_tokens=p.min_tokens or 0,
        watermark=bool(p.watermark),
        seed=secrets.randbits(64) if p.seed is None else p.seed,
    )


def _check_logit_bias(biases: dict[str, float], vocab_size: int) -> dict[int, float]:
    if len(biases) > _MAX_BIASES:
        raise ValidationError(
            f"`logit_bias` supports up to {_MAX_BIASES} token ids. Given: {len(biases)}"
        )
    checked = {}
    for key, bias in biases.items():
        token_id = int(key) if len(key) < 20 and key.isascii() and key.isdecimal() else -1
        if not 0 <= token_id < vocab_size or str(token_id) != key:
            raise _quoting("`logit_bias` holds a token id that is not in the vocabulary", key)
        if not -100.0 <= bias <= 100.0:
            raise ValidationError(
                f"`logit_bias` must be >= -100.0 and <= 100.0. Given: {bias} for token id {key}"
            )
        checked[token_id] = bias
    return checked


def _check_adapter(adapter_id: str | None, config: RouterConfig) -> None:
    if adapter_id and adapter_id != config.model_id:
        raise _quoting("`adapter_id` is not served here", adapter_id)


def _number(value: float | None, default: float) -> float:
    return default if value is None else float32(value)


def _quoting(message: str, text: str) -> ValidationError:
    """Return an error that shows the client its `text`, but not the log."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return ValidationError(f"{message}: {shown}", log_message=message)


def _asks_to_sample(p: GenerateParameters) -> bool:
    fields = (p.temperature, p.top_k, p.top_p, p.typical_p, p.min_p)
    return bool(p.do_sample) or any(field is not None for field in fields)


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
    asked = max(0, room) if checked.max_new_tokens is None else checked.max_new_tokens
    new = _checked_new_tokens(asked, limits)
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
            if len(text) > max(2 * length, _COUNTED_CHARACTERS):
                yield text[:length]


def check_head(num_tokens: int, checked: CheckedParameters, limits: RequestLimits) -> None:
    """Refuse a text of which a beginning has `num_tokens`, if those are too many already.

    The margin is for the beginning's last word, which the text would have split otherwise.
    """
    if num_tokens > limits.max_total_tokens + limits.max_total_tokens // 4 + 16:
        raise _too_long(f"more than {num_tokens}", _asked_at_least(checked, limits), limits)


def check_bounds(
    text: str, checked: CheckedParameters, limits: RequestLimits, bounds: TokenBounds | None
) -> None:
    """Refuse a long text of which the vocabulary alone tells that it has too many tokens."""
    if checked.truncate is not None or bounds is None or len(text) <= _COUNTED_CHARACTERS:
        return
    if bounds.fewest(text) > limits.max_total_tokens:
        asked = _asked_at_least(checked, limits)
        raise _too_long(f"more than {limits.max_total_tokens}", asked, limits)


def _asked_at_least(checked: CheckedParameters, limits: RequestLimits) -> int:
    return _checked_new_tokens(checked.max_new_tokens or 0, limits)


def _checked_new_tokens(asked: int, limits: RequestLimits) -> int:
    return asked if limits.strict_lengths else min(asked, _CHECKED_NEW_TOKENS)


def parse_grammar(parameters: GenerateParameters, config: RouterConfig) -> Grammar | None:
    """Return what the output must match, not yet compiled. Raises `ValidationError`."""
    if parameters.grammar is None:
        return None
    if not config.supports_grammars and parameters.grammar.get("type") != "text":
        raise ValidationError("grammar is not supported")
    return grammars.parse(parameters.grammar)


def _too_long(num_input: str, num_new: int, limits: RequestLimits) -> ValidationError:
    return ValidationError(
        f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
        f"Given: {num_input} `inputs` tokens and {num_new} `max_new_tokens`"
    )
