"""Every panel of the dashboard draws something: a real Prometheus scrapes a server under load."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.builders.served import served
from tools.dashboard import ROWS

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Debian's package prometheus"
)

QUERIES = {
    f"{panel.title}: {name}": query.replace("$service", "tgi")
    for panels in ROWS.values()
    for panel in panels
    for name, query in panel.queries.items()
}
_TIMEOUT_S = 60.0


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run a Prometheus that scrapes `target` each second; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "tgi",
                "static_configs": [{"targets": [target], "labels": {"container": "tgi"}}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, query: str) -> list[float]:
    """Return the numbers that a query gives now, those that are none left out."""
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=10) as response:
        found = json.load(response)["data"]["result"]
    return [number for each in found if math.isfinite(number := float(each["value"][1]))]


async def generate(url: str, until: asyncio.Event) -> None:
    """Send requests of every outcome until it is enough: answers, a refusal, joined batches."""
    async with aiohttp.ClientSession() as session:

        async def post(parameters: dict[str, object]) -> None:
            body = {"inputs": "some words to read", "parameters": parameters}
            async with session.post(f"{url}/generate", json=body) as response:
                await response.read()

        while not until.is_set():
            await asyncio.gather(*(post({"max_new_tokens": 20 + i}) for i in range(4)))
            await post({"max_new_tokens": 0})


async def test_every_query_of_the_dashboard_returns_data(tmp_path: Path) -> None:
    with served("--engine", "fake") as server:
        url = server.wait_ready()
        with prometheus(tmp_path, url.removeprefix("http://")) as prometheus_url:
            enough = asyncio.Event()
            load = asyncio.create_task(generate(url, enough))
            empty, deadline = set(QUERIES), time.monotonic() + _TIMEOUT_S
            while empty and time.monotonic() < deadline:
                await asyncio.sleep(1.0)  # a scrape; there is no event of its own to wait for
                for name in list(empty):
                    try:
                        if await asyncio.to_thread(ask, prometheus_url, QUERIES[name]):
                            empty.remove(name)
                    except OSError:
                        break  # it isn't up yet
            enough.set()
            await load

    assert empty == set()
