"""Read the `prompt` of `/v1/completions`: texts, or token ids, one or several.

Ids are taken as they are, without special tokens. Their text is what they decode to, for `echo`
and for the header that counts its characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from tgi_cli.errors import ValidationError
from tgi_cli.runtime.router.bodies import BodyError
from tgi_cli.runtime.router.schemas.completions import PromptItem
from tgi_cli.runtime.router.service import Prompt, Service

_PREFIX = "Failed to deserialize the JSON body into the target type: prompt: "
_EMPTY = "Empty array detected. Do not use an empty array for the prompt."
_MIXED = "expected a string, strings, token ids, or lists of token ids"


def split_prompts(prompt: str | list[PromptItem]) -> list[str] | list[list[int]]:
    """Return the prompts, all of one kind. Raises `BodyError` for none and for a mixture."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise BodyError(422, _PREFIX + _EMPTY)
    kinds = set(map(type, prompt))
    if len(kinds) > 1:
        raise BodyError(422, _PREFIX + _MIXED)
    prompts = [prompt] if kinds == {int} else prompt
    return cast("list[str] | list[list[int]]", prompts)


def check_vocabulary(prompts: Sequence[str | list[int]], vocab_size: int) -> None:
    """Raise `ValidationError`, naming the place, for an id that no token has."""
    for index, ids in enumerate(prompts):
        if isinstance(ids, str):
            continue
        for extreme in (min(ids, default=0), max(ids, default=0)):
            if not 0 <= extreme < vocab_size:
                at = ids.index(extreme)
                place = f"[{index}][{at}]" if len(prompts) > 1 else f"[{at}]"
                raise ValidationError(
                    f"`prompt` holds token ids from 0 to {vocab_size - 1}. "
                    f"Given: {extreme} at {place}"
                )


async def read_prompt(
    service: Service, prompt: str | list[int], *, is_stream: bool, is_scored: bool, num_top: int
) -> Prompt:
    """Return a prompt as the service takes it."""
    if isinstance(prompt, str):
        text, ids = prompt, None
    else:
        newest = prompt[-service.config.limits.max_total_tokens :]  # more are refused or cut off
        decode = partial(service.tokenizer.decode, newest, skip_special_tokens=False)
        text, ids = await service.off_loop(decode), tuple(prompt)
    return Prompt(text, is_stream=is_stream, ids=ids, is_scored=is_scored, num_top=num_top)
