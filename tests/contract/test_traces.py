"""OTLP traces against a real collector: spec/metrics.md section 6."""

from __future__ import annotations

import asyncio
import builtins
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.collector import collecting
from tests.builders.router import ids_of, script_for, serving
from tgi_cli.errors import MissingExtraError
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.router.tracing import parse_traceparent, start_tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
ASKED = {"inputs": "a prompt", "parameters": {"max_new_tokens": 3}}


async def test_a_request_is_a_tree_of_spans_under_its_callers():
    with collecting() as collector:
        async with serving(script_for("abc"), otlp_endpoint=collector.url) as client:
            headers = {"traceparent": TRACEPARENT}
            status, _, _ = await client.post("/generate", ASKED, headers=headers)

    assert status == 200
    server, route = collector.only("POST /generate"), collector.only("generate")
    assert (server.trace_id, server.parent_id, server.kind) == (TRACE, PARENT, 2)
    assert server.attributes == {
        "http.method": "POST",
        "http.route": "/generate",
        "http.status_code": 200,
    }
    assert route.parent_id == server.span_id
    assert collector.children(route) == {"validate", "schedule", "queued", "infer"}
    assert collector.children(collector.only("validate")) == {"tokenize"}
    of_request = [
        span for span in collector.spans if span.name not in ("batch", "prefill", "decode")
    ]
    assert {span.trace_id for span in of_request} == {TRACE}
    queued, infer = collector.only("queued"), collector.only("infer")
    assert route.start_ns <= queued.start_ns <= queued.end_ns <= infer.start_ns + 1e6
    assert infer.start_ns < infer.end_ns <= route.end_ns + 1e6


async def test_the_routes_span_says_how_long_each_part_took():
    with collecting() as collector:
        async with serving(script_for("abc"), otlp_endpoint=collector.url) as client:
            sampled = {"max_new_tokens": 3, "do_sample": True, "seed": 2**64 - 1}
            await client.post("/generate", {"inputs": "x", "parameters": sampled})

    attributes = collector.only("generate").attributes
    assert set(attributes) == {
        "parameters", "total_time", "validation_time", "queue_time", "inference_time",
        "time_per_token", "seed",
    }  # fmt: skip
    assert attributes["total_time"].endswith(("s", "ms", "µs"))
    assert "max_new_tokens: 3" in attributes["parameters"]
    assert attributes["seed"] == "18446744073709551615"  # more than an integer attribute holds


async def test_a_batch_and_the_requests_in_it_are_linked_both_ways():
    with collecting() as collector:
        async with serving(script_for("abc", step_s=0.05), otlp_endpoint=collector.url) as client:
            await asyncio.gather(*[client.post("/generate", ASKED) for _ in range(3)])

    infers, batches = collector.named("infer"), collector.named("batch")
    assert len(infers) == 3
    shared = [batch for batch in batches if batch.attributes["batch_size"] > 1]
    assert shared, "three requests at once never shared a step"
    for batch in batches:
        assert batch.parent_id == ""
        assert len(batch.links) == batch.attributes["batch_size"]
        assert collector.children(batch) <= {"prefill", "decode"}
        for infer in infers:
            assert (infer.span_id in batch.links) == (batch.span_id in infer.links)
    assert all(len(infer.links) == 3 for infer in infers)  # a step for each token
    assert len(collector.named("prefill")) + len(collector.named("decode")) == len(batches)


async def test_streams_and_chats_have_spans_of_their_own():
    with collecting() as collector:
        async with serving(script_for("abc"), otlp_endpoint=collector.url) as client:
            await client.stream("/generate_stream", ASKED)
            chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
            await client.post("/v1/chat/completions", chat)
            await client.post("/v1/completions", {"prompt": ["x", "y"], "max_tokens": 2})
            best_of = {"best_of": 2, "do_sample": True, "max_new_tokens": 2}
            await client.post("/", {"inputs": "x", "parameters": best_of})
            await client.post("/vertex", {"instances": [{"inputs": "x"}]})
            await client.post("/invocations", {"inputs": "x"})
            await client.post("/tokenize", {"inputs": "x"})
            await client.get("/health")

    assert "async_stream" in collector.children(collector.only("generate_stream"))
    assert "apply_chat_template" in collector.children(collector.only("chat_completions"))
    completions, best = collector.only("completions"), collector.only("generate_best_of")
    for group in (completions, best):
        inner = [span for span in collector.named("infer") if span.parent_id == group.span_id]
        assert len(inner) == 2
    assert best.parent_id == collector.only("compat_generate").span_id
    for name in ("vertex_compatibility", "sagemaker_compatibility"):
        assert "infer" in collector.children(collector.only(name))
    for name in ("tokenize", "health"):
        assert any(span.attributes == {} for span in collector.named(name))
    assert collector.only("GET /health").kind == 2


async def test_a_path_that_is_no_route_is_not_named():
    with collecting() as collector:
        async with serving(otlp_endpoint=collector.url) as client:
            await client.get("/somebody's-secret")
            await client.post("/health", {})
            await client.session.request("PROPFIND", f"{client.url}/health")

    names = {"GET unknown", "POST unknown", "_OTHER unknown", "unmatched"}
    assert {span.name for span in collector.spans} == names
    assert "secret" not in repr(collector.spans)


async def test_the_resource_carries_the_services_name():
    with collecting() as collector:
        named = {"otlp_endpoint": collector.url, "otlp_service_name": "my.router"}
        async with serving(**named) as client:
            await client.get("/health")

    assert {resource["service.name"] for resource in collector.resources} == {"my.router"}


async def test_a_failure_marks_its_spans_and_quotes_nothing():
    bad = "unspeakable"
    script = script_for("ab", fail_prompts_of=len(ids_of(bad)))
    with collecting() as collector:
        async with serving(script, otlp_endpoint=collector.url) as client:
            failed, _, _ = await client.post("/generate", {"inputs": bad})
            refused, _, _ = await client.post("/generate", {"inputs": ""})

    assert (failed, refused) == (424, 422)
    assert [span.is_error for span in collector.named("generate")] == [True, True]
    assert collector.only("infer").is_error
    assert bad not in repr(collector.spans)


async def test_a_client_that_goes_away_ends_its_spans():
    script = script_for("abc", step_s=0.002)
    roomy = {"max_total_tokens": 6000}
    with collecting() as collector:
        async with serving(script, limits=roomy, otlp_endpoint=collector.url) as client:
            body = {"inputs": "x", "parameters": {"max_new_tokens": 5000}}
            stream = await client.session.post(f"{client.url}/generate_stream", json=body)
            await stream.content.readuntil(b"\n\n")
            stream.close()
            await client.router.drain(10)

    assert collector.only("infer").is_error
    assert collector.only("generate_stream").is_error


async def test_a_collector_that_is_away_delays_nobody():
    async with serving(script_for("abc"), otlp_endpoint="http://127.0.0.1:1") as client:
        async with asyncio.timeout(10):
            statuses = [(await client.post("/generate", ASKED))[0] for _ in range(20)]

    assert statuses == [200] * 20


@pytest.mark.parametrize(
    "header",
    [
        "", "nonsense", TRACEPARENT.upper(),
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01", f"{TRACEPARENT}-more", TRACEPARENT[:-1], f"00-{TRACE}-{PARENT}",
    ],
)  # fmt: skip
def test_a_malformed_traceparent_is_none(header: str):
    assert parse_traceparent(header) is None


def test_a_later_version_of_traceparent_may_say_more():
    assert parse_traceparent(f"01-{TRACE}-{PARENT}-00-more") == (TRACE, PARENT)


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.?"))
def test_whatever_a_traceparent_holds_is_read_or_ignored(header: str):
    parsed = parse_traceparent(header)

    assert parsed is None or (len(parsed[0]), len(parsed[1])) == (32, 16)


async def test_a_malformed_traceparent_starts_a_trace_of_its_own():
    with collecting() as collector:
        async with serving(otlp_endpoint=collector.url) as client:
            await client.get("/health", headers={"traceparent": f"00-{'0' * 32}-{PARENT}-01"})

    assert collector.only("GET /health").parent_id == ""


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    real_import = builtins.__import__

    def without_it(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_it)
    config = RouterConfig(model_id="tiny", otlp_endpoint="http://127.0.0.1:4317")

    with pytest.raises(MissingExtraError) as caught:
        start_tracing(config)

    assert caught.value.hint is not None
    assert "tgi-cli[otel]" in caught.value.hint


async def test_a_server_without_an_endpoint_loads_nothing_of_it():
    program = (
        "import sys, tgi_cli.runtime.serving.launch;"
        "print(any(name.startswith(('opentelemetry', 'grpc')) for name in sys.modules))"
    )

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()

    assert printed.strip() == b"False"
