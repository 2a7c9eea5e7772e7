"""TGI's own arguments and variables on real processes: what starts, what is logged, what ends."""

from __future__ import annotations

import json
import signal
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.served import served

FAKE = ("--engine", "fake")
DOCKER_ARGUMENTS = (
    *("--model-id", "demo", "--num-shard", "1", "--sharded", "false", "--json-output"),
    *("--max-input-tokens", "1024", "--max-total-tokens", "2048"),
    *("--max-batch-prefill-tokens", "2048", "--max-concurrent-requests", "64"),
    *("--cuda-memory-fraction", "0.9", "--cuda-graphs", "1,2,4", "--trust-remote-code"),
    *("--waiting-served-ratio", "1.2", "--max-waiting-tokens", "30", "--usage-stats", "off"),
    *("--shard-uds-path", "/tmp/shard", "--master-port", "29501", "--disable-usage-stats"),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder)
    return str(folder)


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{url}/generate", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def logprobs(url: str) -> list[float]:
    body = {"inputs": "abcdefghij" * 5, "parameters": {"max_new_tokens": 7, "details": True}}
    return [token["logprob"] for token in post(url, body)["details"]["tokens"]]


@dataclass(frozen=True)
class Seen:
    lines: list[str]
    logprobs: list[float]


@pytest.fixture(scope="module")
def usual(tiny: str) -> Seen:
    """What a server of the tiny model says that is told nothing else."""
    with served("--model-id", tiny) as server:
        return Seen(server.lines, logprobs(server.wait_ready()))


def test_a_deployments_arguments_start_the_demo_model() -> None:
    with served(*DOCKER_ARGUMENTS) as server:
        line = json.loads(server.wait_for('"Connected"'))
        reply = post(line["url"], {"inputs": "Hello", "parameters": {"max_new_tokens": 3}})
        server.send(signal.SIGTERM)
        exit_code = server.wait_exit()

    events = [json.loads(line) for line in server.lines]
    messages = [event["message"] for event in events]
    warnings = [event["message"] for event in events if event["level"] == "WARN"]
    assert exit_code == 0
    assert reply["generated_text"]
    for text in (
        "Using attention paged - Prefix caching true",
        "Using default cuda graphs []",
        "Starting shard",
        "Warming up model",
        "Starting Webserver",
        "Connected",
        "signal received, starting graceful shutdown",
    ):
        assert messages.count(text) == 1, text
    for start in ("Args { ", "Setting max batch total tokens to ", "KV-cache blocks: ", "Shard re"):
        assert sum(message.startswith(start) for message in messages) == 1, start
    assert [warning.partition("`")[2].partition("`")[0] for warning in warnings] == [
        "trust_remote_code",
        "disable_usage_stats",
        "shard_uds_path",
        "master_port",
        "cuda_graphs",
        "waiting_served_ratio",
        "max_waiting_tokens",
    ]


def test_derived_limits_are_logged_where_none_are_given(usual: Seen) -> None:
    for text in (
        "Default `max_batch_prefill_tokens` to 256",
        "Maximum input tokens defaulted to 255",
        "Maximum total tokens defaulted to 256",
    ):
        assert any(line.endswith(text) for line in usual.lines), text


def test_secrets_are_in_no_line() -> None:
    with served(
        *FAKE,
        *("--api-key", "hunter2", "--ngrok-authtoken", "hunter2", "-e"),
        HF_TOKEN="hunter2",
        LOG_LEVEL="debug",
    ) as server:
        server.wait_ready()

    assert any("api_key: ***" in line and "hf_token: ***" in line for line in server.lines)
    assert "hunter2" not in "".join(server.lines)


def test_env_reports_what_this_runs_on_and_then_starts() -> None:
    with served(*FAKE, "--env") as server:
        server.wait_for("Runtime environment:")
        server.wait_for("Python version: ")
        server.wait_ready()


def test_a_hostname_that_is_no_address_is_not_looked_up() -> None:
    with served(*FAKE, "--hostname", "3f2a9c0d11be") as server:
        server.wait_for("Invalid hostname, defaulting to 0.0.0.0")
        server.wait_ready()


def test_a_port_in_use_ends_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with served(*FAKE, "--port", str(port)) as server:
            exit_code = server.wait_exit()

    assert exit_code == 1
    assert any(line.endswith("Webserver Crashed") for line in server.lines)
    assert server.lines[-2] == f"Error: Can't listen on 127.0.0.1:{port}: the port is in use."
    assert server.survivors() == []


def test_rope_options_reach_the_model(tiny: str, usual: Seen) -> None:
    with served("--model-id", tiny, "--rope-factor", "4") as server:
        scaled = logprobs(server.wait_ready())
    with served("--model-id", tiny, "--rope-scaling", "linear") as server:
        unscaled = logprobs(server.wait_ready())  # its factor is 1

    assert scaled != usual.logprobs
    assert unscaled == usual.logprobs


def test_torch_computes_where_custom_kernels_are_off(tiny: str, usual: Seen) -> None:
    with served("--model-id", tiny, "--disable-custom-kernels") as server:
        server.wait_for("attention, norms: torch")
        torch = logprobs(server.wait_ready())

    assert torch == pytest.approx(usual.logprobs, abs=1e-4)


def test_weights_are_read_from_another_folder(tiny: str, usual: Seen, tmp_path: Path) -> None:
    small, weights = tmp_path / "small", tmp_path / "weights"
    for folder in (small, weights):
        folder.mkdir()
    for path in Path(tiny).iterdir():
        is_weights = path.suffix == ".safetensors"
        ((weights if is_weights else small) / path.name).write_bytes(path.read_bytes())

    with served("--model-id", str(small), "--weights-cache-override", str(weights)) as server:
        found = logprobs(server.wait_ready())

    assert found == usual.logprobs


def test_prompts_computed_whole_and_uncached_give_the_same_bytes() -> None:
    body = {
        "inputs": " ".join(f"The number {n} comes before {n + 1}." for n in range(90)),
        "parameters": {"max_new_tokens": 7, "details": True},
    }
    with served("--max-total-tokens", "2000") as server:
        in_chunks = post(server.wait_ready(), body)
    with served("--max-total-tokens", "2000", PREFILL_CHUNKING="0", PREFIX_CACHING="0") as server:
        server.wait_for("Using attention paged - Prefix caching false")
        whole = post(server.wait_ready(), body)

    assert whole == in_chunks


def test_grammars_are_refused_where_they_are_turned_off() -> None:
    grammar = {"type": "regex", "value": "[0-9]+"}
    with served(*FAKE, "--disable-grammar-support") as server:
        url = server.wait_ready()
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(url, {"inputs": "x", "parameters": {"grammar": grammar}})

    assert refused.value.code == 422
    assert "grammar is not supported" in json.load(refused.value)["error"]


def test_sagemakers_and_vertexs_variables_start_a_server(tiny: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with served(
        *FAKE, HF_MODEL_ID=tiny, SM_NUM_GPUS="1", AIP_HTTP_PORT=port, AIP_HEALTH_ROUTE="/alive"
    ) as server:
        url = server.wait_ready()
        with urllib.request.urlopen(f"{url}/alive", timeout=10) as response:
            assert response.status == 200
        with urllib.request.urlopen(f"{url}/info", timeout=10) as response:
            assert json.load(response)["model_id"] == tiny

    assert url.endswith(f":{port}")
