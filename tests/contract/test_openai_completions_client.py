"""OpenAI's own client on `/v1/completions`."""

from __future__ import annotations

import openai
import pytest

from tests.builders.router import Client, ids_of, script_for, serving

GREEDY = {"model": "any", "prompt": "x", "temperature": 0}
FULL = {"max_concurrent_requests": 0}


def connect(client: Client) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="-", max_retries=0)


async def test_several_choices_come_with_logprobs_and_usage():
    async with serving(script_for("abc")) as client, connect(client) as api:
        reply = await api.completions.create(
            **{**GREEDY, "prompt": ["x", "xy"]},
            n=2,
            max_tokens=2,
            logprobs=2,
            echo=True,
            logit_bias={"70": 1},
            stop="zzz",
            user="somebody",
        )

    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in reply.choices] == ["xab", "xab", "xybc", "xybc"]
    assert reply.usage.total_tokens == 3 + 8
    logprobs = reply.choices[2].logprobs
    assert logprobs.tokens == ["x", "y", "b", "c"]
    assert logprobs.token_logprobs == [None, -0.25, -0.5, -0.5]
    assert logprobs.text_offset == [0, 1, 2, 3]


async def test_a_stream_of_token_ids_ends_with_the_usage_of_all():
    async with serving(script_for("abc", prompt="quick")) as client, connect(client) as api:
        stream = await api.completions.create(
            **{**GREEDY, "prompt": list(ids_of("quick"))},
            max_tokens=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "abc"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3


@pytest.mark.parametrize("openai_strict", [False, True])
async def test_refusals_raise_the_clients_own_errors_with_the_text(openai_strict):
    strict = {"openai_strict": openai_strict}
    async with serving(**strict) as client, connect(client) as api:
        with pytest.raises(openai.UnprocessableEntityError) as invalid:
            await api.completions.create(**{**GREEDY, "temperature": 1}, top_p=3.0)
        with pytest.raises(openai.UnprocessableEntityError) as suffix:
            await api.completions.create(**GREEDY, suffix="y")
    async with serving(limits=FULL, **strict) as client, connect(client) as api:
        with pytest.raises(openai.RateLimitError) as overloaded:
            await api.completions.create(**GREEDY)

    assert "`top_p` must be" in str(invalid.value.body)
    assert "Suffix is not supported" in str(suffix.value.body)
    assert "Model is overloaded" in str(overloaded.value.body)
    assert invalid.value.param == ("top_p" if openai_strict else None)


async def test_a_refused_stream_raises_when_it_is_read_or_in_strict_mode_at_once():
    async with serving(limits=FULL) as client, connect(client) as api:
        stream = await api.completions.create(**GREEDY, stream=True)
        with pytest.raises(openai.APIError, match="Model is overloaded"):
            await anext(stream)
    async with serving(limits=FULL, openai_strict=True) as client, connect(client) as api:
        with pytest.raises(openai.RateLimitError):
            await api.completions.create(**GREEDY, stream=True)
