"""What of a `/v1/completions` call reaches the engine: spec/http-api.md section 9.1."""

from __future__ import annotations

import pytest

from tests.builders.router import ids_of, serving
from tgi_cli.runtime.ipc.client import EngineClient, OpenRequest
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.types import Grammar

URL = "/v1/completions"


@pytest.fixture
def submitted(monkeypatch) -> list[NewRequest]:
    requests: list[NewRequest] = []
    submit = EngineClient.submit

    def note_and_submit(self: EngineClient, request: NewRequest) -> OpenRequest:
        requests.append(request)
        return submit(self, request)

    monkeypatch.setattr(EngineClient, "submit", note_and_submit)
    return requests


@pytest.mark.parametrize(
    ("temperature", "do_sample", "sent"), [(0, False, 1.0), (None, True, 1.0), (0.5, True, 0.5)]
)
async def test_temperature_decides_whether_to_sample(submitted, temperature, do_sample, sent):
    async with serving() as client:
        await client.post(URL, {"prompt": "x", "temperature": temperature, "max_tokens": 1})

    [request] = submitted
    assert request.sampling.do_sample == do_sample
    assert request.sampling.temperature == sent


async def test_temperature_0_is_greedy_whatever_cut_offs_are_given(submitted):
    cut_offs = {"top_k": 3, "top_p": 0.5, "typical_p": 0.5, "min_p": 0.1}
    body = {"prompt": "x", "temperature": 0, "max_tokens": 1}
    async with serving() as client:
        status, _, _ = await client.post(URL, body | cut_offs)
        _, _, refused = await client.post(URL, body | {"top_p": 5})

    [request] = submitted
    assert status == 200
    assert request.sampling.takes_best
    assert refused["error"].endswith("`top_p` must be > 0.0 and < 1.0")


async def test_every_sampling_field_is_honoured(submitted):
    fields = {
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repetition_penalty": 1.25,
        "top_k": 7,
        "top_p": 0.75,
        "typical_p": 0.875,
        "min_p": 0.125,
        "seed": 2**64 - 1,
        "watermark": True,
    }
    others = {"logit_bias": {"65": -3}, "min_tokens": 2, "ignore_eos": True, "max_tokens": 3}
    async with serving() as client:
        status, _, reply = await client.post(URL, {"prompt": "xy" * 9, **fields, **others})
        assert status == 200, reply

    [request] = submitted
    assert {name: getattr(request.sampling, name) for name in fields} == fields
    assert request.sampling.logit_bias == {65: -3.0}
    assert request.sampling.min_tokens == 2
    assert request.ignore_eos
    assert request.max_new_tokens == 3
    assert not request.scores_prompt


async def test_truncate_keeps_the_last_tokens_of_texts_and_of_ids(submitted):
    ids = list(ids_of("quick 日本"))
    async with serving() as client:
        await client.post(URL, {"prompt": "quick 日本", "truncate": 3, "max_tokens": 1})
        await client.post(URL, {"prompt": ids, "truncate": 3, "max_tokens": 1})

    assert [request.prompt_ids for request in submitted] == [ids[-3:]] * 2


async def test_the_prompt_is_scored_only_where_its_scores_are_told(submitted):
    async with serving() as client:
        body = {"prompt": "xyz", "max_tokens": 1}
        for change in ({"logprobs": 2}, {"echo": True}, {"echo": True, "logprobs": 2}):
            await client.post(URL, {**body, **change})

    asked = [(each.top_n_tokens, each.scores_prompt, each.prompt_top_n) for each in submitted]
    assert asked == [(2, False, 0), (0, False, 0), (2, True, 2)]


@pytest.mark.parametrize(
    ("asked", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "regex", "value": "a+"}}, Grammar("regex", "a+")),
        ({"grammar": {"type": "choice", "value": ["a"]}}, Grammar("choice", '["a"]')),
        ({"guided_regex": "b"}, Grammar("regex", "b")),
    ],
)
async def test_each_way_to_ask_for_a_grammar_reaches_the_engine(submitted, asked, grammar):
    async with serving() as client:
        await client.post(URL, {"prompt": "x", "max_tokens": 1, **asked})

    assert [request.grammar for request in submitted] == [grammar]


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "text"}, "grammar": {"type": "regex", "value": "a"}},
        {"guided_regex": "b", "guided_choice": ["a"]},
        {"guided_regex": "b", "response_format": {"type": "text"}},
        {"response_format": {"type": "regex", "value": "("}},
        {"logit_bias": {"100000000": 1}},
        {"presence_penalty": 2.5},
        {"min_p": 1.5},
    ],
)
async def test_what_cannot_be_honoured_is_refused_before_the_engine(submitted, asked):
    async with serving() as client:
        status, _, reply = await client.post(URL, {"prompt": "x", "max_tokens": 1, **asked})

    assert status == 422
    assert reply["error_type"] == "validation"
    assert submitted == []


async def test_any_model_name_and_null_everywhere_are_accepted():
    names = "model max_tokens temperature top_p stream seed suffix repetition_penalty stop n"
    names += " frequency_penalty presence_penalty logit_bias best_of echo logprobs stream_options"
    names += " response_format grammar truncate user"
    async with serving() as client:
        null = await client.post(URL, {"prompt": "x", **dict.fromkeys(names.split())})
        named = await client.post(URL, {"prompt": "x", "max_tokens": 1, "model": "nobody/has-it"})

    assert (null[0], named[0]) == (200, 200)
    assert named[2]["model"] == "tiny"
