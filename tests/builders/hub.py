"""A hub of our own on the loopback address, with a second host for large files, and its faults.

Small files are answered at once, large ones (`.safetensors`, `.bin`, `.gguf`) by a redirect to the
other host, as the real one does. Every request is kept. Ranges are served.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt", ".gguf")
_RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<commit>[^/]+)/(?P<name>.+)")
_INFO = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/revision/(?P<revision>.+)")
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True)
class Asked:
    host: str  # "hub" or "cdn"
    method: str
    path: str
    headers: dict[str, str]

    @property
    def first_byte(self) -> int:
        found = _RANGE.fullmatch(self.headers.get("range", ""))
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Fault:
    """What one answer does wrong; without a field it is as it should be."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_at: int | None = None  # the connection ends after so many bytes of this answer
    content_length: int | None = None
    ignores_range: bool = False
    wait_for: threading.Event | None = None  # after the first half of the body
    reached: threading.Event | None = None  # set when that half is sent


class FakeHub:
    """`faults[name]` are the next answers about a file; `"info"` is the listing."""

    def __init__(self) -> None:
        self.url = self.cdn_url = ""
        self.asked: list[Asked] = []
        self.faults: dict[str, deque[Fault]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}  # "org/name@main" → commit
        self.listed: dict[str, Any] = {}  # changes to the listing, by file

    def publish(
        self, files: dict[str, bytes], repository: str = "somebody/tiny", revision: str = "main"
    ) -> str:
        """Make a commit of these files and point the revision to it; return its hash."""
        text = repr(sorted((name, git_sha1(data)) for name, data in files.items()))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[f"{repository}@{revision}"] = commit
        self.refs[f"{repository}@{commit}"] = commit
        return commit

    def fail(self, name: str, *faults: Fault) -> None:
        self.faults.setdefault(name, deque()).extend(faults)

    def asked_for(self, name: str) -> list[Asked]:
        """Return the requests for a file's bytes, in order."""
        return [
            asked
            for asked in self.asked
            if asked.method == "GET"
            and asked.path.endswith(f"/{name}")
            and (asked.host == "cdn" or not name.endswith(LARGE))
        ]

    def listing(self, repository: str, revision: str) -> dict[str, Any] | None:
        commit = self.refs.get(f"{repository}@{revision}")
        if commit is None:
            return None
        siblings = []
        for name, data in self.commits[commit].items():
            entry: dict[str, Any] = {
                "rfilename": name,
                "size": len(data),
                "blobId": git_sha1(data),
            }
            if name.endswith(LARGE):
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
            siblings.append(entry | self.listed.get(name, {}))
        return {
            "id": repository,
            "sha": commit,
            "pipeline_tag": "text-generation",
            "siblings": siblings,
        }


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    servers = [_server(hub, "hub", "127.0.0.1"), _server(hub, "cdn", "127.0.0.1")]
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no news."""


def _server(hub: FakeHub, host: str, address: str) -> _Server:
    class Handler(_Handler):
        pass

    Handler.hub, Handler.host = hub, host
    return _Server((address, 0), Handler)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    host: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(Asked(self.host, self.command, path, headers))
        if found := _INFO.fullmatch(path):
            fault = self._fault("info")
            self._say_listing(found["repository"], found["revision"], fault)
        elif self.host == "cdn":
            _, _, commit, name = path.split("/", 3)
            self._say_file(self.hub.commits[commit][name], self._fault(name))
        elif found := _RESOLVE.fullmatch(path):
            name, commit = found["name"], found["commit"]
            content = self.hub.commits[commit][name]
            facts = {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(content)}"'}
            if name.endswith(LARGE) and (fault := self._fault(f"redirect {name}")) is None:
                facts["Location"] = f"{self.hub.cdn_url}/cdn/{commit}/{name}"
                facts["X-Linked-Size"] = str(len(content))
                facts["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
                self._say(302, b"", facts)
            elif name.endswith(LARGE):
                assert fault is not None
                self._say_file(b"", fault)
            else:
                fault = self._fault(name) or Fault()
                self._say_file(content, replace(fault, headers=facts | fault.headers))
        else:
            self._say(404, b"no such path", {})

    def _fault(self, name: str) -> Fault | None:
        waiting = self.hub.faults.get(name)
        return waiting.popleft() if waiting else None

    def _say_listing(self, repository: str, revision: str, fault: Fault | None) -> None:
        listing = self.hub.listing(repository, revision)
        if fault is not None:
            self._say_file(json.dumps(listing).encode(), fault)
        elif listing is not None:
            self._say(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})
        elif any(name.startswith(f"{repository}@") for name in self.hub.refs):
            self._say(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            self._say(401, b"", {"X-Error-Code": "RepoNotFound"})

    def _say_file(self, data: bytes, fault: Fault | None) -> None:
        fault = fault or Fault()
        if fault.status is not None:
            self._say(fault.status, fault.body or b"", fault.headers)
            return
        data = data if fault.body is None else fault.body
        status, headers, begin = 200, dict(fault.headers), 0
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked and not fault.ignores_range:
            begin = int(asked[1])
            if begin >= len(data):
                self._say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._say(status, data[begin:], headers, fault)

    def _say(
        self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None = None
    ) -> None:
        fault = fault or Fault()
        length = len(body) if fault.content_length is None else fault.content_length
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body[: fault.cut_at]
        if fault.wait_for is not None:
            half = len(sent) // 2
            self.wfile.write(sent[:half])
            self.wfile.flush()
            if fault.reached is not None:
                fault.reached.set()
            fault.wait_for.wait(30)
            sent = sent[half:]
        self.wfile.write(sent)
        if fault.cut_at is not None or length != len(body):
            self.wfile.flush()
            self.close_connection = True
