"""The table of routes is all there is, and says who may call what: spec/http-api.md section 1."""

from __future__ import annotations

import pytest

from tests.builders.router import serving
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.router.route_table import ROUTES, Scope, routes_of

OPEN_POSTS = {"/chat_tokenize"}


def filled(path):
    """Put something into the path's variables."""
    return path.replace("{model:.+}", "tiny").replace("{name}", "tiny").replace("{version}", "1")


async def test_every_registered_route_is_in_the_table():
    async with serving() as client:
        app = client.router._runner.app
        registered = {
            (route.method, route.resource._formatter if route.resource.get_info().get("formatter")
             else route.resource.canonical)
            for route in app.router.routes()
        }  # fmt: skip

    named = {(r.method, r.path.replace(":.+", "")) for r in ROUTES}
    named |= {("HEAD", path) for method, path in named if method == "GET"}
    assert registered == named


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_posts_need_a_key_and_gets_do_not(route):
    assert isinstance(route.scope, Scope)
    is_open_post = route.path in OPEN_POSTS
    assert (route.scope is Scope.INFERENCE) == (route.method == "POST" and not is_open_post)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
async def test_a_key_is_asked_for_exactly_where_the_table_says(route):
    async with serving(api_key="secret") as client:
        url = client.url + filled(route.path)
        async with client.session.request(route.method, url) as response:
            status, body = response.status, await response.read()

    if route.scope is Scope.INFERENCE:
        assert (status, body) == (401, b"")
    else:
        assert status != 401


@pytest.mark.parametrize("path", [r.path for r in ROUTES if r.method == "GET"])
async def test_head_answers_as_get_does_without_the_body(path):
    async with serving() as client:
        url = client.url + filled(path)
        async with client.session.get(url, allow_redirects=False) as response:
            status, content_type = response.status, response.headers.get("content-type")
        async with client.session.head(url) as response:
            head = response.status, response.headers.get("content-type")
            body = await response.read()

    assert (head, body) == ((status, content_type), b"")


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
async def test_another_method_is_a_405_with_an_empty_body(route):
    async with (
        serving() as client,
        client.session.put(client.url + filled(route.path)) as response,
    ):
        status, allow, body = response.status, response.headers["allow"], await response.read()

    assert (status, body) == (405, b"")
    assert route.method in allow.split(",")


async def test_keys_of_a_file_are_taken(tmp_path):
    file = tmp_path / "keys"
    file.write_text("one\ntwo\n")
    file.chmod(0o600)
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    async with serving(api_key_file=str(file)) as client:
        statuses = [
            (await client.post("/generate", body, headers={"Authorization": f"Bearer {key}"}))[0]
            for key in ("one", "two", "three")
        ]

    assert statuses == [200, 200, 401]


async def test_info_shows_what_the_build_says():
    config = {"docker_label": "sha-1", "build_sha": "abc", "model_dtype": "torch.bfloat16"}
    async with serving(**config) as client:
        _, _, info = await client.get("/info")

    assert '"sha":"abc","docker_label":"sha-1","model_dtype":"torch.bfloat16"' in info


async def test_adapters_are_listed_after_the_model():
    async with serving(adapter_ids=("a", "b")) as client:
        _, _, models = await client.get("/v1/models")
        status, _, _ = await client.get("/v1/models/b")

    assert [models.index(f'"id":"{name}"') for name in ("tiny", "a", "b")] == sorted(
        models.index(f'"id":"{name}"') for name in ("tiny", "a", "b")
    )
    assert status == 200


def test_chat_tokenize_is_protected_only_when_asked():
    for protects in (False, True):
        config = RouterConfig(model_id="m", api_key="k", protects_chat_tokenize=protects)
        scopes = [r for r in routes_of(config) if r.scope is Scope.CHAT_TOKENIZE]
        assert all(route.needs_key(config) is protects for route in scopes)


@pytest.mark.parametrize("stream", [True, False, None])
async def test_generate_never_streams_and_generate_stream_always_does(stream):
    body = {"inputs": "x", "stream": stream, "parameters": {"max_new_tokens": 2}}
    async with serving() as client:
        _, headers, reply = await client.post("/generate", body)
        events = await client.stream("/generate_stream", body)

    assert headers["content-type"] == "application/json"
    assert list(reply) == ["generated_text"]
    assert len(events) == 2


async def test_the_root_is_a_probe_to_get_and_a_generation_to_post():
    async with serving(api_key="secret") as client:
        status, _, text = await client.get("/")
        refused, _, _ = await client.post("/", {"inputs": "x"})

    assert (status, text, refused) == (200, "", 401)
