"""Each client in its own virtual environment, against real servers on loopback.

The environments are made under `.venv-clients` the first time, keyed on what they hold. Marked
`clients`: `make clients` runs this, and nothing else collects it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders.router import Client, serving
from tests.builders.served import served
from tgi_cli.runtime.hub.convert.model_files import write_text_assets
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.ipc.fake_engine import FakeScript

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
VENVS = ROOT / ".venv-clients"
API_KEY = "a key with blanks"


@dataclass(frozen=True)
class Environment:
    name: str
    script: str
    requirements: tuple[str, ...]


ENVIRONMENTS = (
    Environment("text-generation", "text_generation_client.py", ("text-generation==0.7.0",)),
    Environment("hub-0.36", "hub_client.py", ("huggingface_hub==0.36.*", "aiohttp")),
    Environment("hub-1", "hub_client.py", ("huggingface_hub>=1,<2",)),
    Environment("hub-2", "hub_client.py", ("huggingface_hub>=2,<3",)),
    Environment("openai", "openai_client.py", ("openai>=3,<4",)),
    Environment(
        "lm-eval",
        "lm_eval_client.py",
        ("lm-eval==0.4.13", "requests", "aiohttp", "tenacity", "tqdm", "transformers>=5,<6"),
    ),
)


def python_of(environment: Environment) -> Path:
    """Return the interpreter of a client's environment, which is made if need be."""
    folder = VENVS / environment.name
    python, stamp = folder / "bin" / "python", folder / "requirements"
    wanted = "\n".join(environment.requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, *environment.requirements], check=True)
        stamp.write_text(wanted)
    return python


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    with served("--model-id", "demo") as server:
        yield server.wait_ready()


@pytest.fixture
async def servers(demo_url: str, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Return the fields of the scripts' `Servers`."""
    write_text_assets(locate_model("demo").text, tmp_path)
    slow = FakeScript(step_s=0.05)
    failing = FakeScript(fails=True)
    async with AsyncExitStack() as stack:
        full = await stack.enter_async_context(
            serving(slow, limits={"max_concurrent_requests": 1, "max_total_tokens": 1 << 18})
        )
        fails = await stack.enter_async_context(serving(failing))
        keyed = await stack.enter_async_context(serving(api_key=API_KEY))
        stack.push_async_callback(_cancel, await _occupy(full))
        yield {
            "demo": demo_url,
            "tokenizer": str(tmp_path),
            "full": full.url,
            "failing": fails.url,
            "keyed": keyed.url,
            "api_key": API_KEY,
        }


async def _occupy(server: Client) -> asyncio.Task[None]:
    """Hold the server's only permit until the task is cancelled."""
    holds = asyncio.Event()

    async def hold() -> None:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 1 << 17}}
        async with server.session.post(f"{server.url}/generate_stream", json=body) as response:
            async for _ in response.content:
                holds.set()

    task = asyncio.create_task(hold())
    await holds.wait()
    return task


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: each.name)
async def test_a_client_works_unchanged(environment: Environment, servers: dict[str, str]) -> None:
    python = await asyncio.to_thread(python_of, environment)

    process = await asyncio.create_subprocess_exec(
        python,
        SCRIPTS / environment.script,
        json.dumps(servers),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    print(output.decode())
    assert process.returncode == 0, output.decode()
