"""Bodies, keys, CORS, health and facts: spec/http-api.md sections 2 to 4 and 13."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from tests.builders.router import serving
from tgi_cli import __version__

PREFIX = "Failed to deserialize the JSON body into the target type: "
MALFORMED = {
    "truncated": b'{"inputs": "x"',
    "not_json": b"inputs=x",
    "nan": b'{"inputs": "x", "parameters": {"temperature": NaN}}',
    "bom": b'\xef\xbb\xbf{"inputs": "x"}',
    "bad_utf8": b'{"inputs": "\xff"}',
    "deep": b'{"inputs": "x", "a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "empty": b"",
}
MISTYPED = {
    "inputs_missing": ({}, "inputs"),
    "inputs_a_list": ({"inputs": ["x"]}, "inputs"),
    "top_k_text": ({"inputs": "x", "parameters": {"top_k": "1"}}, "parameters.top_k"),
    "top_k_float": ({"inputs": "x", "parameters": {"top_k": 1.5}}, "parameters.top_k"),
    "top_k_too_large": ({"inputs": "x", "parameters": {"top_k": 2**31}}, "parameters.top_k"),
    "negative": ({"inputs": "x", "parameters": {"max_new_tokens": -1}}, "max_new_tokens"),
    "too_large": ({"inputs": "x", "parameters": {"max_new_tokens": 2**32}}, "max_new_tokens"),
    "seed_too_large": ({"inputs": "x", "parameters": {"seed": 2**64}}, "parameters"),
    "stop_of_numbers": ({"inputs": "x", "parameters": {"stop": [1]}}, "parameters.stop"),
    "flag_text": ({"inputs": "x", "parameters": {"details": "yes"}}, "parameters.details"),
    "array": ([1, 2], "body"),
    "huge_array": ([0] * 100_000, "body"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_json_is_a_400_in_plain_text(case):
    async with serving() as client:
        status, headers, text = await client.post("/generate", MALFORMED[case])

    assert status == 400
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert text.startswith("Failed to parse the request body as JSON: ")


@pytest.mark.parametrize("case", MISTYPED)
async def test_mistyped_json_is_a_422_that_names_the_place(case):
    body, path = MISTYPED[case]
    async with serving() as client:
        status, headers, text = await client.post("/generate", json.dumps(body).encode())

    assert status == 422
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert text.startswith(PREFIX)
    assert path in text
    assert "at line 1 column" in text


async def test_a_lone_surrogate_is_refused():
    async with serving() as client:
        status, _, _ = await client.post("/generate", b'{"inputs": "\\ud800"}')

    assert status in (400, 422)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("", 415),
    ],
)
async def test_only_json_content_types_are_read(content_type, status):
    async with serving() as client:
        found, _, text = await client.post(
            "/generate",
            b'{"inputs": "x", "parameters": {"max_new_tokens": 1}}',
            headers={"content-type": content_type},
        )

    assert found == status
    if status == 415:
        assert text == "Expected request with `Content-Type: application/json`"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(chunked):
    async def pieces():
        for _ in range(40):
            yield b" " * 100

    async with serving(limits={"payload_limit_bytes": 2000}) as client:
        data = pieces() if chunked else b" " * 4000
        headers = {"content-type": "application/json"}
        url = f"{client.url}/generate"
        async with client.session.post(url, data=data, headers=headers) as response:
            status, text = response.status, await response.text()

    assert status == 413
    assert text == "Failed to buffer the request body: length limit exceeded"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer SECRET", 401),
        ("secret", 401),
        ("Bearer secret", 200),
        ("bearer secret", 200),
    ],
)
async def test_the_key_guards_inference_and_nothing_else(authorization, status):
    headers = {} if authorization is None else {"Authorization": authorization}
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    async with serving(api_key="secret") as client:
        found, _, text = await client.post("/generate", body, headers=headers)
        open_paths = [
            (await client.get(path))[0] for path in ("/health", "/info", "/metrics", "/v1/models")
        ]

    assert found == status
    if status == 401:
        assert text == ""
    assert open_paths == [200] * 4


async def test_no_other_header_holds_a_key():
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    async with serving(api_key="secret") as client:
        statuses = [
            (await client.post("/generate", body, headers={name: value}))[0]
            for name, value in (
                ("x-api-key", "secret"),
                ("api-key", "Bearer secret"),
                ("Authorization", "Basic secret"),
                ("Authorization", "Bearer secret secret"),
            )
        ]

    assert statuses == [401] * 4


async def test_unknown_paths_and_methods_have_empty_bodies():
    async with serving() as client:
        missing = await client.get("/nothing")
        wrong = await client.get("/generate")

    assert (missing[0], missing[2]) == (404, "")
    assert (wrong[0], wrong[2]) == (405, "")
    assert "POST" in wrong[1]["allow"]


@pytest.mark.parametrize(
    ("allowed", "origin", "answer"),
    [
        ((), "http://a.example", "*"),
        (("http://a.example",), "http://a.example", "http://a.example"),
        (("http://a.example",), "http://b.example", None),
    ],
)
async def test_cross_origin_headers(allowed, origin, answer):
    async with serving(cors_allow_origin=allowed) as client:
        _, headers, _ = await client.get("/info", headers={"Origin": origin})
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with client.session.options(f"{client.url}/generate", headers=preflight) as response:
            allowed_headers = response.headers["access-control-allow-headers"]

    assert headers.get("access-control-allow-origin") == answer
    assert headers["vary"] == (
        "origin, access-control-request-method, access-control-request-headers"
    )
    assert "authorization" in allowed_headers


@pytest.mark.parametrize("path", ["/health", "/ping", "/"])
async def test_health_is_empty_and_answers_head(path):
    async with serving() as client:
        status, _, text = await client.get(path)
        async with client.session.head(client.url + path) as response:
            head_status = response.status

    assert (status, text, head_status) == (200, "", 200)


@pytest.mark.parametrize("path", ["/health", "/ping", "/"])
async def test_health_is_503_while_draining_and_after_the_engines_end(path):
    async with serving() as client:
        client.router._service.is_draining = True
        draining = await client.get(path)
        client.router._service.is_draining = False
        client.engine.close()
        ended = await client.get(path)

    for status, _, text in (draining, ended):
        assert (status, text) == (503, '{"error":"unhealthy","error_type":"healthcheck"}')


async def test_info_lists_tgis_keys_in_order():
    async with serving() as client:
        _, _, text = await client.get("/info")

    info = json.loads(text)
    assert (info["model_sha"], info["model_pipeline_tag"]) == (None, None)  # nobody told
    assert list(info)[:14] == [
        "model_id", "model_sha", "model_pipeline_tag", "max_concurrent_requests", "max_best_of",
        "max_stop_sequences", "max_input_tokens", "max_total_tokens", "validation_workers",
        "max_client_batch_size", "router", "version", "sha", "docker_label",
    ]  # fmt: skip


async def test_the_served_model_is_listed():
    async with serving() as client:
        _, _, listed = await client.get("/v1/models")
        one = await client.get("/v1/models/tiny")
        other = await client.get("/v1/models/other")

    entry = {"id": "tiny", "object": "model", "created": 0, "owned_by": "tiny"}
    assert json.loads(listed) == {"object": "list", "data": [entry]}
    assert json.loads(one[2]) == entry
    assert other[0] == 404


async def test_tokenize_gives_byte_offsets():
    async with serving() as client:
        _, _, spans = await client.post("/tokenize", {"inputs": "é b"})
        count = await client.metric("tgi_request_count")

    assert b"".join("é b".encode()[s["start"] : s["stop"]] for s in spans[1:]) == "é b".encode()
    assert list(spans[0]) == ["id", "text", "start", "stop"]
    assert count == 0


async def test_replies_are_not_packed_and_know_no_request_ids():
    sent = {"Accept-Encoding": "gzip, br", "x-request-id": "seven"}
    async with serving() as client:
        replies = [
            await client.get(path, headers=sent) for path in ("/api-doc/openapi.json", "/health")
        ]
        body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
        replies.append(await client.post("/generate", body, headers=sent))

    for _, headers, _ in replies:
        assert "content-encoding" not in headers
        assert "seven" not in headers.values()


async def test_every_reply_says_what_it_varies_by():
    vary = "origin, access-control-request-method, access-control-request-headers"
    stream = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    async with serving(api_key="secret") as client:
        replies = [
            await client.get("/health"),
            await client.get("/nothing"),
            await client.get("/generate"),
            await client.post("/generate", stream),
            await client.post("/chat_tokenize", b"{"),
            await client.post(
                "/generate_stream", stream, headers={"Authorization": "Bearer secret"}
            ),
        ]

    assert [status for status, _, _ in replies] == [200, 404, 405, 401, 400, 200]
    assert {headers["vary"] for _, headers, _ in replies} == {vary}


async def test_a_preflight_allows_tgis_methods_and_headers():
    asked = {"Origin": "http://a.example", "Access-Control-Request-Method": "POST"}
    async with (
        serving() as client,
        client.session.options(f"{client.url}/generate", headers=asked) as response,
    ):
        status, headers = response.status, response.headers

    assert status == 200
    assert headers["access-control-allow-methods"] == "GET,POST"
    assert headers["access-control-allow-headers"] == "content-type,authorization"
    assert headers["access-control-allow-origin"] == "*"


async def test_info_says_what_the_server_was_given():
    limits = {"max_concurrent_requests": 7, "max_best_of": 3, "max_stop_sequences": 5,
              "max_client_batch_size": 6}  # fmt: skip
    facts = {"validation_workers": 4, "model_sha": "a1", "model_pipeline_tag": "text-generation"}
    async with serving(limits=limits, **facts) as client:
        _, _, text = await client.get("/info")

    info = json.loads(text)
    lengths = {"max_input_tokens": 90, "max_total_tokens": 100, "max_input_length": 90}
    given = {**limits, **facts, **lengths, "model_id": "tiny", "router": "text-generation-router"}
    assert {name: info[name] for name in given} == given
    assert (info["version"], info["sha"], info["docker_label"]) == (__version__, None, None)


async def test_tokenize_reads_nothing_but_the_text():
    async with serving(limits={"max_concurrent_requests": 1}) as client:
        client.router._service._permits.take()  # it needs none
        text = "a much longer text than may be asked for " * 9
        plain = await client.post("/tokenize", {"inputs": text})
        odd = {"truncate": 1, "temperature": -1.0, "max_new_tokens": 0}
        other = await client.post("/tokenize", {"inputs": text, "parameters": odd})
        mistyped = await client.post("/tokenize", {"inputs": text, "parameters": {"truncate": "1"}})
        client.router._service._permits.give_back()

    assert (plain[0], other[0], mistyped[0]) == (200, 200, 422)
    assert plain[2] == other[2]
    assert plain[2][-1]["stop"] == len(text)


async def test_one_big_text_at_a_time_is_listed_and_small_ones_do_not_wait(monkeypatch):
    big, listed, may_end = "x" * 70_000, [], threading.Event()

    async with serving() as client:
        tokenizer = client.router._service.tokenizer
        encode = tokenizer.encode_with_offsets

        def watched(text, **options):
            listed.append(len(text))
            if text == big:
                assert may_end.wait(10)
            return encode(text, **options)

        monkeypatch.setattr(tokenizer, "encode_with_offsets", watched)
        slow = [asyncio.create_task(client.post("/tokenize", {"inputs": big})) for _ in range(3)]
        while not listed:  # noqa: ASYNC110  the thread has no event of ours
            await asyncio.sleep(0.001)
        small, _, _ = await client.post("/tokenize", {"inputs": "ab"})
        listed_meanwhile = list(listed)
        may_end.set()
        statuses = [(await task)[0] for task in slow]

    assert small == 200
    assert listed_meanwhile == [70_000, 2]
    assert statuses == [200, 200, 200]
