"""`/metrics` as dashboards read it: spec/metrics.md sections 1 to 4 and 7."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.builders.router import Client, ids_of, script_for, serving
from tgi_cli.runtime.config.resolved import RequestLimits
from tgi_cli.runtime.ipc.messages import RequestFailed, SequenceOutput, StepOutput, StepStats
from tgi_cli.runtime.router.metrics import Metrics
from tgi_cli.runtime.types import FinishReason

METHOD = {"method": ("prefill", "decode")}
SERIES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "tgi_request_count": ("counter", {}),
    "tgi_request_success": ("counter", {}),
    "tgi_request_failure": (
        "counter",
        {
            "err": (
                "overloaded", "validation", "template", "incomplete", "dropped", "generation",
            )
        },
    ),
    "tgi_request_duration": ("histogram", {}),
    "tgi_request_validation_duration": ("histogram", {}),
    "tgi_request_queue_duration": ("histogram", {}),
    "tgi_request_inference_duration": ("histogram", {}),
    "tgi_request_mean_time_per_token_duration": ("histogram", {}),
    "tgi_request_generated_tokens": ("histogram", {}),
    "tgi_request_input_length": ("histogram", {}),
    "tgi_request_max_new_tokens": ("histogram", {}),
    "tgi_request_skipped_tokens": ("histogram", {}),
    "tgi_queue_size": ("gauge", {}),
    "tgi_batch_next_size": ("histogram", {}),
    "tgi_batch_current_size": ("gauge", {}),
    "tgi_batch_current_max_tokens": ("gauge", {}),
    "tgi_batch_max_total_tokens": ("gauge", {}),
    "tgi_batch_total_tokens": ("gauge", {}),
    "tgi_batch_concat": (
        "counter", {"reason": ("backpressure", "wait_exceeded", "chunking")}
    ),
    "tgi_batch_inference_count": ("counter", METHOD),
    "tgi_batch_inference_success": ("counter", METHOD),
    "tgi_batch_inference_failure": ("counter", METHOD),
    "tgi_batch_inference_duration": ("histogram", METHOD),
    "tgi_batch_forward_duration": ("histogram", METHOD),
    "tgi_batch_decode_duration": ("histogram", METHOD),
    "tgi_batch_filter_duration": ("histogram", METHOD),
    "tgi_batch_concat_duration": ("histogram", METHOD),
    # The union's.
    "tgi_request_duration_seconds": ("histogram", {}),
    "tgi_request_time_to_first_token_duration": ("histogram", {}),
    "tgi_request_inter_token_duration": ("histogram", {}),
    "tgi_kv_cache_blocks_total": ("gauge", {}),
    "tgi_kv_cache_blocks_used": ("gauge", {}),
    "tgi_prefix_cache_hit_tokens": ("counter", {}),
    "tgi_prefix_cache_query_tokens": ("counter", {}),
    "tgi_prompt_tokens": ("counter", {}),
    "tgi_generated_tokens": ("counter", {}),
    "tgi_requests_running": ("gauge", {}),
    "tgi_requests_waiting": ("gauge", {}),
    "tgi_speculation_accepted_tokens": ("counter", {}),
    "tgi_speculation_proposed_tokens": ("counter", {}),
}  # fmt: skip
"""Name, type, and all values of its label. Copied out by hand: this is what others rely on."""

GAUGES_AT_REST = (
    "tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens",
    "tgi_requests_running", "tgi_requests_waiting", "tgi_kv_cache_blocks_used",
)  # fmt: skip
LENGTHS = {"max_input_tokens": 4095, "max_total_tokens": 4096}


async def scrape(client: Client) -> str:
    return (await client.get("/metrics"))[2]


def ours(text: str) -> list[Metric]:
    return [m for m in text_string_to_metric_families(text) if m.name.startswith("tgi_")]


def values(text: str) -> dict[str, float]:
    """Return every series' value by its text."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#"]
    return {series: float(value) for series, _, value in lines}


def bounds(text: str, name: str) -> list[str]:
    return re.findall(rf'^{name}_bucket{{.*?le="([^"]+)"}}', text, re.MULTILINE)


async def test_every_series_is_there_from_the_first_scrape_with_its_type_and_labels():
    async with serving() as client:
        text = await scrape(client)

    declared = dict(re.findall(r"^# TYPE (tgi_\w+) (\w+)$", text, re.MULTILINE))
    assert declared == {name: kind for name, (kind, _) in SERIES.items()}
    shown = values(text)
    for name, (kind, labels) in SERIES.items():
        suffix = "_count" if kind == "histogram" else ""
        expected = [
            f'{name}{suffix}{{{label}="{value}"}}'
            for label, label_values in labels.items()
            for value in label_values
        ] or [f"{name}{suffix}"]
        assert [s for s in shown if re.fullmatch(rf"{name}{suffix}({{.*}})?", s)] == expected
    at_first = {s: v for s, v in shown.items() if s.startswith("tgi_") and v}
    assert set(at_first) == {"tgi_kv_cache_blocks_total"}


async def test_the_text_is_what_prometheus_reads():
    async with serving(script_for("abc"), limits=LENGTHS) as client:
        await client.post("/generate", {"inputs": "x"})
        text = await scrape(client)

    families = ours(text)
    assert all(family.documentation for family in families)
    assert len({family.name for family in families}) == len(families) == len(SERIES)
    assert len(re.findall(r"^tgi_request_count", text, re.MULTILINE)) == 1
    assert not re.search(r"_created|_total_total|quantile=", text)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus")
async def test_promtool_finds_fault_with_nothing_but_names_that_are_given():
    async with serving(script_for("abc"), limits=LENGTHS) as client:
        await client.post("/generate", {"inputs": "x"})
        text = await scrape(client)

    checked = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )

    complaints = (checked.stdout + checked.stderr).splitlines()
    about_names = r'tgi_\w+ (non-)?[a-z -]* metrics should (not )?have "_(total|count)" suffix'
    assert [line for line in complaints if not re.fullmatch(about_names, line)] == []
    assert checked.returncode in (0, 3)  # 3: there are complaints; 1: it can't be read


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=1.0.0", "*/*", ""])
async def test_the_format_is_not_negotiated(accept: str):
    async with serving(api_key="secret") as client:
        _, headers, text = await client.get("/metrics", headers={"accept": accept})

    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# EOF" not in text


async def test_bounds_are_written_as_the_old_server_wrote_them():
    async with serving(limits=LENGTHS) as client:
        text = await scrape(client)

    durations = bounds(text, "tgi_request_duration")
    assert len(durations) == 36
    assert durations[:3] == ["0.00015000000000000001", "0.00022500000000000002", "0.0003375"]
    assert durations[-2:] == ["145.61096060497135", "+Inf"]
    assert bounds(text, "tgi_request_input_length")[:3] == ["40.95", "81.9", "122.85000000000001"]
    assert bounds(text, "tgi_request_input_length")[-1] == "+Inf"
    totals = bounds(text, "tgi_request_generated_tokens")
    assert (totals[0], totals[24], totals[99]) == ("40.96", "1024", "4096")
    assert bounds(text, "tgi_request_max_new_tokens") == totals
    assert bounds(text, "tgi_batch_next_size") == [*map(str, range(1, 1025)), "+Inf"]
    assert bounds(text, "tgi_request_skipped_tokens") == [*map(str, range(11)), "+Inf"]
    for name, (kind, _) in SERIES.items():
        if name.endswith("duration"):
            assert kind == "histogram"
            assert bounds(text, name)[:36] == durations
    assert not any("e" in bound for bound in re.findall(r'le="([^"]+)"', text))


async def test_each_route_counts_as_it_did_in_the_old_server():
    messages = [{"role": "user", "content": "x"}]
    short = {"max_new_tokens": 2}
    calls = [
        ("/generate", {"inputs": "x", "parameters": short}, 1),
        ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 0}}, 1),
        ("/generate", {"inputs": 7}, 0),  # not decoded
        ("/generate_stream", {"inputs": "x", "parameters": short}, 1),
        ("/", {"inputs": "x", "parameters": {**short, "best_of": 2, "do_sample": True}}, 1),
        ("/v1/chat/completions", {"messages": messages, "max_tokens": 2}, 2),
        ("/v1/chat/completions", {"messages": messages, "max_tokens": 2, "stream": True}, 2),
        (
            "/v1/chat/completions",
            {"messages": [], "tools": [], "response_format": {"type": "regex", "value": "a"}},
            1,
        ),
        ("/v1/completions", {"prompt": "x", "max_tokens": 2}, 2),
        ("/v1/completions", {"prompt": ["x", "y", "z"], "max_tokens": 2}, 4),
        ("/v1/completions", {"prompt": ["x"] * 9}, 1),
        ("/vertex", {"instances": [{"inputs": "x", "parameters": short}] * 3}, 4),
        ("/invocations", {"inputs": "x", "parameters": short}, 1),
        ("/invocations", {"prompt": "x", "max_tokens": 2}, 2),
        ("/tokenize", {"inputs": "x"}, 0),
        ("/chat_tokenize", {"messages": messages}, 1),
    ]
    counted = []
    async with serving(script_for("abc")) as client:
        for path, body, _ in calls:
            before = await client.metric("tgi_request_count")
            await client.post(path, body)
            counted.append(int(await client.metric("tgi_request_count") - before))

    assert counted == [count for _, _, count in calls]


async def test_a_call_refused_as_a_whole_is_a_failure_of_validation():
    async with serving(script_for("abc")) as client:
        await client.post("/v1/completions", {"prompt": "x", "suffix": "y"})
        await client.post("/v1/completions", {"prompt": ["x"] * 9})
        failed = await client.metric('tgi_request_failure{err="validation"}')

    assert failed == 2


async def test_a_refused_request_counts_by_the_layer_that_refused_it():
    script = script_for("ab", step_s=0.002, fail_prompts_of=len(ids_of("bad")))
    limits = {"max_concurrent_requests": 1, "max_total_tokens": 6000}
    async with serving(script, limits=limits) as client:
        await client.post("/generate", {"inputs": ""})
        await client.post("/generate", {"inputs": "bad"})
        stream = await client.session.post(
            f"{client.url}/generate_stream",
            json={"inputs": "x", "parameters": {"max_new_tokens": 5000}},
        )
        await stream.content.readuntil(b"\n\n")
        await client.post("/generate", {"inputs": "x"})
        await client.stream("/generate_stream", {"inputs": "x"})
        stream.close()
        await client.router.drain(10)
        shown = {s: v for s, v in values(client_text(client)).items() if "failure{err" in s}

    assert {s.split('"')[1]: v for s, v in shown.items() if v} == {
        "validation": 1, "generation": 1, "overloaded": 2, "dropped": 1,
    }  # fmt: skip


def client_text(client: Client) -> str:
    """Return the exposition of a server that doesn't listen any more."""
    return client.router.metrics.render().decode()


async def test_an_engine_that_ends_fails_what_it_worked_on():
    script = script_for("abc", step_s=0.002)
    async with serving(script, limits={"max_total_tokens": 6000}) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 5000}}
        stream = await client.session.post(f"{client.url}/generate_stream", json=body)
        await stream.content.readuntil(b"\n\n")
        client.engine.close()
        await stream.content.read()
        status, _, _ = await client.post("/generate", {"inputs": "x"})
        failed = await client.metric('tgi_request_failure{err="generation"}')

    assert (status, failed) == (424, 2)


async def test_an_unexpected_error_counts_as_incomplete(monkeypatch):
    async with serving(script_for("abc")) as client:

        def fail(*_: object) -> None:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr("tgi_cli.runtime.router.service.Generation._take", fail)
        status, _, _ = await client.post("/generate", {"inputs": "x"})
        incomplete = await client.metric('tgi_request_failure{err="incomplete"}')

    assert (status, incomplete) == (500, 1)


@pytest.mark.parametrize("seed", range(3))
async def test_relations_hold_after_a_storm(seed: int):
    rng = random.Random(seed)
    script = script_for("abc", step_s=0.001, fail_prompts_of=len(ids_of("bad one")))
    limits = {"max_concurrent_requests": 7, "max_total_tokens": 1000, "max_client_batch_size": 4}
    async with serving(script, limits=limits) as client:
        at_first = values(client_text(client)).keys()
        await asyncio.gather(*[caller(client, random.Random(rng.random())) for _ in range(13)])
        await client.router.drain(20)
        await until_at_rest(client)
        text = client_text(client)

    shown = values(text)
    assert shown.keys() == at_first  # no label has a value that it hadn't
    succeeded = shown["tgi_request_success"]
    failures = {s.split('"')[1]: v for s, v in shown.items() if s.startswith("tgi_request_failure")}
    assert all(failures[err] for err in ("overloaded", "validation", "dropped", "generation"))
    assert succeeded
    assert shown["tgi_request_count"] == succeeded + sum(failures.values())
    for name in (
        "duration", "duration_seconds", "validation_duration", "queue_duration",
        "inference_duration", "mean_time_per_token_duration", "generated_tokens",
    ):  # fmt: skip
        assert shown[f"tgi_request_{name}_count"] == succeeded
    for method in ("prefill", "decode"):
        series = f'{{method="{method}"}}'
        count, success, failure = (
            shown[f"tgi_batch_inference_{event}{series}"]
            for event in ("count", "success", "failure")
        )
        assert count == success + failure
        assert shown[f"tgi_batch_inference_duration_count{series}"] == success
    assert {name: shown[name] for name in GAUGES_AT_REST} == dict.fromkeys(GAUGES_AT_REST, 0)
    parts = ("validation", "queue", "inference")
    by_part = sum(shown[f"tgi_request_{part}_duration_sum"] for part in parts)
    assert by_part == pytest.approx(shown["tgi_request_duration_sum"], rel=1e-6)
    assert shown["tgi_request_input_length_sum"] == shown["tgi_prompt_tokens"]
    assert shown["tgi_request_skipped_tokens_count"] == shown["tgi_generated_tokens"]
    assert shown["tgi_request_skipped_tokens_sum"] == 0


async def caller(client: Client, rng: random.Random) -> None:
    """Make some native requests of all sorts, some of them given up half-way."""
    for _ in range(9):
        path = rng.choice(("/generate", "/generate_stream"))
        parameters = {"max_new_tokens": rng.choice((0, 1, 3, 17, 400))}
        body = {"inputs": rng.choice(("x", "xyz", "bad one", "")), "parameters": parameters}
        if rng.random() < 0.3:
            try:
                async with asyncio.timeout(rng.random() / 50):
                    await client.post(path, body)
            except TimeoutError:
                pass
        else:
            await client.post(path, body)


async def until_at_rest(client: Client) -> None:
    """Wait for the engine's word that the last aborted request is gone."""
    async with asyncio.timeout(10):
        while any(values(client_text(client))[name] for name in GAUGES_AT_REST):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_metrics_are_on_a_port_of_their_own_too():
    with busy_port() as port:
        pass
    async with serving(prometheus_port=port) as client:
        async with client.session.get(f"http://127.0.0.1:{port}/metrics") as response:
            text, content_type = await response.text(), response.headers["content-type"]
        async with client.session.get(f"http://127.0.0.1:{port}/info") as response:
            other = response.status

    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "tgi_request_count 0" in text
    assert other == 404


async def test_a_busy_metrics_port_is_a_warning(caplog):
    with busy_port() as port:
        async with serving(prometheus_port=port) as client:
            status, _, _ = await client.get("/metrics")

    assert status == 200
    assert f"No metrics on port {port}" in caplog.text


@contextmanager
def busy_port() -> Iterator[int]:
    """Yield a port of the loopback address that is taken within the block, and free after it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def step(
    *,
    num_ok: int = 0,
    num_failed: int = 0,
    num_prefill: int = 0,
    tokens_each: int = 1,
    **stats: int,
) -> StepOutput:
    numbers = dict.fromkeys(
        (
            "num_decode_tokens", "num_joined", "num_running", "num_waiting", "num_blocks_used",
            "num_reserved_tokens", "num_preempted",
        ),
        0,
    )  # fmt: skip
    return StepOutput(
        [SequenceOutput(i, [5] * tokens_each, [], FinishReason.LENGTH) for i in range(num_ok)],
        [RequestFailed(100 + i, "Server error: x") for i in range(num_failed)],
        [],
        0,
        StepStats(
            is_prefill=num_prefill > 0,
            num_prefill_tokens=num_prefill,
            batch_size=num_ok + num_failed,
            forward_s=0.5,
            sample_s=0.125,
            step_s=1.0,
            **numbers | stats,
        ),
    )


def after(*steps: StepOutput) -> dict[str, float]:
    """Return what is not 0 after these steps, without the process's own series."""
    metrics = Metrics(RequestLimits())
    for each in steps:
        metrics.step_done(each)
    shown = values(metrics.render().decode())
    return {s: v for s, v in shown.items() if v and s.startswith("tgi_") and "_bucket" not in s}


def test_a_step_with_prompt_tokens_is_a_prefill_even_if_others_decode_in_it():
    shown = after(step(num_ok=3, num_prefill=7, num_decode_tokens=2))

    assert shown['tgi_batch_inference_success{method="prefill"}'] == 1
    assert not any('method="decode"' in series for series in shown)
    assert shown['tgi_batch_forward_duration_sum{method="prefill"}'] == 0.5
    assert shown['tgi_batch_decode_duration_sum{method="prefill"}'] == 0.125
    assert shown['tgi_batch_filter_duration_sum{method="prefill"}'] == 0.375


def test_a_step_that_fails_everybody_is_a_failure_and_has_no_duration():
    shown = after(step(num_failed=2))

    assert shown == {
        'tgi_batch_inference_count{method="decode"}': 1,
        'tgi_batch_inference_failure{method="decode"}': 1,
    }


def test_a_step_that_fails_one_of_many_is_a_success():
    assert after(step(num_ok=2, num_failed=1))['tgi_batch_inference_success{method="decode"}'] == 1


def test_several_tokens_in_a_step_are_skipped_tokens():
    shown = after(step(num_ok=2, tokens_each=3), step(num_ok=5))

    assert shown["tgi_request_skipped_tokens_count"] == 7
    assert shown["tgi_request_skipped_tokens_sum"] == 4
    assert shown["tgi_generated_tokens"] == 11


def test_lookups_in_the_prefix_cache_are_summed():
    looked_up = step(num_ok=1, num_prefix_hit_tokens=32, num_prefix_query_tokens=50)

    shown = after(looked_up, looked_up)

    assert shown["tgi_prefix_cache_hit_tokens"] == 64
    assert shown["tgi_prefix_cache_query_tokens"] == 100


def test_newcomers_are_counted_by_how_many_came_at_once():
    shown = after(step(num_ok=5, num_prefill=3, num_joined=3), step(num_ok=2, num_joined=0))

    assert shown["tgi_batch_next_size_count"] == 1
    assert shown["tgi_batch_next_size_sum"] == 3


async def test_the_parts_of_each_requests_time_are_all_of_it():
    names = [f"tgi_request_{part}_duration_sum" for part in ("validation", "queue", "inference")]
    async with serving(script_for("abc", step_s=0.001)) as client:
        for num_tokens in (1, 30):
            before = values(client_text(client))
            body = {"inputs": "x", "parameters": {"max_new_tokens": num_tokens}}
            await client.post("/generate", body)
            after = values(client_text(client))
            took = {name: after[name] - before[name] for name in after if name in before}

            assert took["tgi_request_duration_sum"] > 0
            by_part = sum(took[name] for name in names)
            assert by_part == pytest.approx(took["tgi_request_duration_sum"], rel=0.01)
