"""A whole server as its operator sees it: log, metrics and traces of real processes."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.builders.collector import collecting
from tests.builders.served import Served, served

FAKE = ("--engine", "fake", "--json-output")
DEAD = "http://127.0.0.1:9"  # nothing listens on the port of the discard protocol


def wait_url(server: Served) -> str:
    return str(json.loads(server.wait_for('"Connected"'))["url"])


def read(url: str, body: dict[str, object] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.read().decode())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_log_metrics_and_traces_tell_of_the_same_requests() -> None:
    port = free_port()
    with collecting() as collector:
        tracing = ("--otlp-endpoint", collector.url, "--otlp-service-name", "mine")
        with served(*FAKE, *tracing, "--prometheus-port", str(port)) as server:
            url = wait_url(server)
            for _ in range(3):
                read(f"{url}/generate", {"inputs": "x", "parameters": {"max_new_tokens": 2}})
            texts = [read(f"{url}/metrics"), read(f"http://127.0.0.1:{port}/metrics")]
            server.send(signal.SIGTERM)
            exit_code = server.wait_exit()

    assert exit_code == 0, "\n".join(server.lines)
    lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    assert {"timestamp", "level", "message", "target", "filename", "line_number"} <= set(lines[0])
    assert len([line for line in lines if line["message"] == "Success"]) == 3
    for text in texts:
        families = {family.name: family for family in text_string_to_metric_families(text)}
        [success] = families["tgi_request_success"].samples
        assert success.value == 3
        assert families["tgi_batch_max_total_tokens"].samples[0].value > 0
        assert any(name.startswith("process_") for name in families)
    assert len(collector.named("POST /generate")) == len(collector.named("infer")) == 3
    assert {resource["service.name"] for resource in collector.resources} == {"mine"}


def test_a_collector_that_is_away_does_not_keep_a_server_from_stopping() -> None:
    with served(*FAKE, "--otlp-endpoint", DEAD) as server:
        url = wait_url(server)
        read(f"{url}/generate", {"inputs": "x"})
        server.send(signal.SIGTERM)

        assert server.wait_exit() == 0, "\n".join(server.lines)

    assert not any("Traceback" in line for line in server.lines)
