"""What HTTP lets a client try: limits before parsing, and nothing told but the fault."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.builders.router import serving
from tgi_cli.runtime.router import bodies, connection

HEAD = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"inputs":"x","parameters":{"max_new_tokens":1}}'
FAULTS = {
    "long_header": HEAD + b"X-A: " + b"a" * 9000 + b"\r\n\r\n",
    "long_path": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many_headers": HEAD + b"".join(b"x%d: 1\r\n" % i for i in range(500)) + b"\r\n",
    "tls": b"\x16\x03\x01\x02\r\n\r\n",
    "method": b"FOO<> / HTTP/1.1\r\nHost: x\r\n\r\n",
    "length_word": HEAD + b"Content-Length: abc\r\n\r\n",
    "length_negative": HEAD + b"Content-Length: -1\r\n\r\n",
    "length_overflow": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "two_lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
    "nul": b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "path_bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
}


def with_body(body, *headers):
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def exchange(client, data):
    """Return status, headers and body of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    writer.write(data)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length or 0))
    finally:
        writer.close()
    return int(head.split()[1]), head, body


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_no_http_is_a_400_and_nothing_in_the_log(fault, caplog):
    async with serving() as client:
        status, head, body = await exchange(client, FAULTS[fault])
        after, _, _ = await client.get("/health")

    assert (status, after) == (400, 200)
    assert body == b""
    assert b"server:" not in head.lower()
    assert caplog.records == []


async def test_a_key_in_a_header_that_is_too_long_is_not_logged(caplog):
    data = HEAD + b"Authorization: Bearer sk-secret" + b"a" * 9000 + b"\r\n\r\n"
    async with serving(api_key="sk-secret") as client:
        status, _, _ = await exchange(client, data)

    assert status == 400
    assert "sk-secret" not in caplog.text


async def test_a_connection_that_begins_no_request_is_closed(monkeypatch):
    monkeypatch.setattr(connection, "FIRST_REQUEST_TIME_LIMIT_S", 0.05)
    async with serving() as client:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(client.url.rpartition(":")[2])
        )
        writer.write(HEAD)  # and never the empty line

        assert await reader.read() == b""
        writer.close()


async def test_a_body_that_comes_too_slowly_is_given_up(monkeypatch):
    monkeypatch.setattr(bodies, "BODY_TIME_LIMIT_S", 0.05)
    async with serving() as client:
        status, _, body = await exchange(client, HEAD + b"Content-Length: 50\r\n\r\n{")
        await client.router._service.wait_idle()  # no handler is left waiting

    assert status == 408
    assert body == b"Failed to buffer the request body: it took more than 0.05 s"


async def test_a_length_over_the_limit_is_refused_before_the_body_comes():
    async with serving() as client:
        status, _, body = await exchange(client, HEAD + b"Content-Length: 2000001\r\n\r\n")

    assert status == 413
    assert body == b"Failed to buffer the request body: length limit exceeded"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(BODY), 200),
        (BODY, 400),
        (gzip.compress(b" " * 50_000_000, 1), 413),
    ],
    ids=["packed", "not-packed", "too-large-unpacked"],
)
async def test_a_packed_body_counts_as_what_it_unpacks_to(body, status, caplog):
    async with serving() as client:
        found, _, _ = await exchange(client, with_body(body, b"Content-Encoding: gzip"))

    assert found == status
    assert [record for record in caplog.records if record.exc_info] == []


async def test_no_header_names_the_software():
    async with serving() as client:
        heads = [
            (await exchange(client, data))[1].lower()
            for data in (with_body(BODY), HEAD.replace(b"/generate", b"/none") + b"\r\n")
        ]

    assert not any(word in head for head in heads for word in (b"server:", b"aiohttp", b"python"))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json", "application/json"),
        ("text/event-stream, application/json;q=0.9", "application/json"),
        ("*/*", "text/plain"),
        ("text/plain", "text/plain"),
    ],
)
async def test_a_client_that_asks_for_json_gets_body_errors_in_json(accept, content_type):
    text = "Failed to deserialize the JSON body into the target type: inputs: "
    async with serving() as client:
        status, headers, reply = await client.post(
            "/generate", {"inputs": 1}, headers={"Accept": accept}
        )

    assert status == 422
    assert headers["content-type"].partition(";")[0] == content_type
    if content_type == "application/json":
        assert reply["error"].startswith(text)
        assert reply["error_type"] == "validation"
    else:
        assert reply.startswith(text)
