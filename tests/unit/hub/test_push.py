"""Uploads to a hub on the loopback address, by the hub's own client."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from tgi_cli.errors import HubUnreachableError, ModelNotFoundError
from tgi_cli.runtime.hub import push


class UploadHub:
    """Takes one commit; `status` other than 200 refuses to make a repository."""

    def __init__(self) -> None:
        self.status = 200
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.url = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return self.status, {"url": f"{self.url}/org/name", "error": "no"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            return 200, {"files": modes}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {"commitUrl": f"{self.url}/org/name/commit/1", "commitOid": "1"}
        return 404, {"error": path}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    hub = UploadHub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, reply = hub.answer(self.path, body)
            raw = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(push, "HfApi", lambda: HfApi(endpoint=hub.url, token="hf_secret"))
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_file_is_uploaded_to_a_private_repository(hub: UploadHub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool.jinja").write_text("{{ x }}")

    push.check_push("org/name")
    address = push.push_folder(tmp_path, "org/name", "gptq, 4 bits")

    assert hub.created.get("private") is True or hub.created["visibility"] == "private"
    assert address == f"{hub.url}/org/name/commit/1"
    assert hub.files == {
        "config.json": b"{}",
        "additional_chat_templates/tool.jinja": b"{{ x }}",
    }


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_quoted_without_the_token(hub: UploadHub, status: int) -> None:
    hub.status = status

    with pytest.raises(ModelNotFoundError, match=f"the hub answers {status}") as caught:
        push.check_push("org/name")

    assert "hf_secret" not in f"{caught.value} {caught.value.hint}"


def test_no_hub_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    unused = HfApi(endpoint="http://127.0.0.1:1", token="hf_secret")
    monkeypatch.setattr(push, "HfApi", lambda: unused)

    with pytest.raises(HubUnreachableError, match="can't be reached"):
        push.check_push("org/name")
