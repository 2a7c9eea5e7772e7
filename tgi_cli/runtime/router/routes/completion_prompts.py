"""Read the `prompt` of `/v1/completions`: texts, or token ids, one or several.

Ids are taken as they are, without special tokens. Their text is what they decode to, for `echo`
and for the header that counts its characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

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
    texts = [item for item in prompt if isinstance(item, str)]
    ids = [item for item in prompt if isinstance(item, int)]
    lists = [item for item in prompt if isinstance(item, list)]
    if len(prompt) not in (len(texts), len(ids), len(lists)):
        raise BodyError(422, _PREFIX + _MIXED)
    return texts or ([ids] if ids else lists)


def check_vocabulary(prompts: Sequence[str | list[int]], vocab_size: int) -> None:
    """Raise `ValidationError`, naming the place, for an id that no token has."""
    for index, ids in enumerate(prompts):
        if isinstance(ids, str) or not ids or (min(ids) >= 0 and max(ids) < vocab_size):
            continue
        at, wrong = next((at, i) for at, i in enumerate(ids) if not 0 <= i < vocab_size)
        place = f"[{index}][{at}]" if len(prompts) > 1 else f"[{at}]"
        raise ValidationError(
            f"`prompt` holds token ids from 0 to {vocab_size - 1}. Given: {wrong} at {place}"
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
