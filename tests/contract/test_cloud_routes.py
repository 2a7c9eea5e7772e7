"""SageMaker, Vertex AI and KServe: spec/http-api.md sections 1, 14 and 15."""

from __future__ import annotations

import pytest

from tests.builders.router import answering, script_for, serving
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.ipc.fake_engine import FakeScript
from tgi_cli.runtime.router.route_table import routes_of

PREFIX = "Failed to deserialize the JSON body into the target type: "
INFER = "/v2/models/any/versions/7/infer"
FOUR = {"max_new_tokens": 4}


def infer_body(*texts, parameters=None, num_outputs=None):
    inputs = [
        {"name": f"in{i}", "shape": [1, len(t)], "datatype": "BYTES", "data": list(t)}
        for i, t in enumerate(texts)
    ]
    outputs = [{"name": f"out{i}"} for i in range(num_outputs or len(texts))]
    return {"id": "42", "inputs": inputs, "outputs": outputs, "parameters": parameters}


def texts_of(reply):
    return [bytes(output["data"]).decode() for output in reply["outputs"]]


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ({"inputs": "x", "parameters": FOUR}, ["generated_text"]),
        ({"prompt": "x", "max_tokens": 4}, ["object", "id"]),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 4}, ["object", "id"]),
        ({"inputs": "x", "prompt": "y", "parameters": FOUR}, ["generated_text"]),
        ({"inputs": None, "prompt": "y", "max_tokens": 4}, ["object", "id"]),
        ({"inputs": ["not a string"], "prompt": "y", "max_tokens": 4}, ["object", "id"]),
    ],
)
async def test_invocations_answer_as_the_first_kind_that_fits(body, keys):
    async with serving() as client:
        status, _, reply = await client.post("/invocations", body)

    assert status == 200
    answer = reply[0] if "generated_text" in keys else reply
    assert list(answer)[: len(keys)] == keys


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "body: missing field `inputs` or `messages` or `prompt`"),
        ({"inputs": 3}, "inputs: Expected `str`, got `int` at line 1 column 2"),
        ({"inputs": 3, "prompt": 4}, "inputs: Expected `str`, got `int` at line 1 column 2"),
    ],
)
async def test_invocations_of_no_kind_are_a_422(body, text):
    async with serving() as client:
        status, _, found = await client.post("/invocations", body)

    assert (status, found) == (422, PREFIX + text)


async def test_invocations_stream_as_their_kind_does():
    async with serving(script_for("ab")) as client:
        native = await client.stream(
            "/invocations", {"inputs": "x", "parameters": FOUR, "stream": True}
        )
        openai = await client.stream(
            "/invocations", {"prompt": "x", "max_tokens": 4, "stream": True}
        )

    assert [event["index"] for event in native] == [1, 2, 3, 4]
    assert openai[-1] == "[DONE]"


async def test_predictions_come_in_order_with_their_own_parameters():
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    instances = [
        {"inputs": "x", "parameters": {"max_new_tokens": 5, "return_full_text": True}},
        chat,
        {"inputs": "x", "parameters": {"max_new_tokens": 2}},
    ]
    async with serving(FakeScript(token_ids=(70,))) as client:
        status, headers, reply = await client.post("/vertex", {"instances": instances})
        count = await client.metric("tgi_request_count")

    assert status == 200
    assert [len(text) for text in reply["predictions"]] == [6, 3, 2]
    assert reply["predictions"][0].startswith("x")
    assert "x-compute-time" not in headers
    assert count == 1 + len(instances)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (
            {"instances": []},
            422,
            {"error": "Input validation error", "error_type": "Input validation error"},
        ),
        (
            {"instances": [{"inputs": "x", "parameters": {"temperature": 0}}]},
            422,
            {
                "error": "Input validation error: `temperature` must be strictly positive",
                "error_type": "validation",
            },
        ),
        (
            {"instances": [{}] * 200},
            429,
            {"error": "Model is overloaded", "error_type": "overloaded"},
        ),
        ({"instances": [{}]}, 422, f"{PREFIX}instances[0]: missing field `inputs` or `messages`"),
        (
            {"instances": [{"inputs": "x"}, {"inputs": "x", "parameters": {"top_k": "1"}}]},
            422,
            f"{PREFIX}instances[1].parameters.top_k: Expected `int | null`, got `str` "
            "at line 1 column 32",
        ),
    ],
)
async def test_bad_vertex_calls_say_why(body, status, error):
    async with serving() as client:
        found, _, reply = await client.post("/vertex", body)

    assert (found, reply) == (status, error)


async def test_an_engine_failure_behind_vertex_and_kserve_keeps_its_own_error():
    async with serving(FakeScript(fail_prompts_of=3)) as client:
        vertex = await client.post("/vertex", {"instances": [{"inputs": "xyz"}]})
        kserve = await client.post(INFER, infer_body(b"xyz"))

    for status, _, reply in (vertex, kserve):
        assert (status, reply["error_type"]) == (424, "generation")


@pytest.mark.parametrize(
    ("parameters", "samples"),
    [(None, True), ({}, True), ({"do_sample": None}, True), ({"do_sample": False}, False)],
)
async def test_vertex_instances_sample_unless_told_not_to(parameters, samples):
    async with serving() as client:
        sent = []
        submit = client.engine.submit
        client.engine.submit = lambda request: sent.append(request) or submit(request)
        status, _, _ = await client.post(
            "/vertex", {"instances": [{"inputs": "x", "parameters": parameters}]}
        )

    assert status == 200
    assert [request.sampling.do_sample for request in sent] == [samples]


async def test_vertex_paths_are_what_the_environment_says():
    config = {"vertex_predict_route": "/predict", "vertex_health_route": "/am-i-well"}
    async with serving(api_key="k", **config) as client:
        health = await client.get("/am-i-well")
        locked = await client.post("/predict", {"instances": [{"inputs": "x"}]})
        headers = {"Authorization": "Bearer k"}
        opened = await client.post("/predict", {"instances": [{"inputs": "x"}]}, headers=headers)

    assert (health[0], locked[0], opened[0]) == (200, 401, 200)


@pytest.mark.parametrize("path", ["/vertex", "/generate", "/ping"])
def test_a_vertex_path_may_be_one_that_exists(path):
    config = RouterConfig(model_id="m", vertex_predict_route=path, vertex_health_route="/health")

    routes = {(route.method, route.path): route for route in routes_of(config)}

    assert routes["POST", path].tag == "Vertex AI"


async def test_infer_answers_in_the_order_of_its_inputs():
    bodies = infer_body(b"xxxxxx", "é".encode(), parameters=FOUR)
    async with serving(FakeScript(token_ids=tuple(range(65, 91)))) as client:
        status, _, reply = await client.post(INFER, bodies)
        _, _, first = await client.post("/generate", {"inputs": "xxxxxx", "parameters": FOUR})
        _, _, second = await client.post("/generate", {"inputs": "é", "parameters": FOUR})

    assert status == 200
    assert list(reply) == ["id", "outputs"]
    assert reply["id"] == "42"
    assert list(reply["outputs"][0]) == ["name", "shape", "datatype", "data"]
    assert [output["name"] for output in reply["outputs"]] == ["out0", "out1"]
    assert texts_of(reply) == [first["generated_text"], second["generated_text"]]
    assert [output["shape"] for output in reply["outputs"]] == [
        [1, len(output["data"])] for output in reply["outputs"]
    ]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            infer_body(b"x", num_outputs=2),
            {"error": "Inputs and outputs length mismatch", "error_type": "length mismatch"},
        ),
        (
            infer_body(b"ok\xff"),
            {"error": "invalid utf-8 sequence from index 2", "error_type": "utf8"},
        ),
    ],
)
async def test_bad_infer_calls_say_why(body, error):
    async with serving() as client:
        status, _, reply = await client.post(INFER, body)

    assert (status, reply) == (422, error)


async def test_a_number_that_is_no_byte_is_refused():
    body = infer_body(b"x")
    body["inputs"][0]["data"] = [256]
    async with serving() as client:
        status, _, text = await client.post(INFER, body)

    assert status == 422
    assert "inputs[0].data[0]: Expected `int` <= 255" in text


async def test_kserve_names_itself():
    async with serving() as client:
        _, _, server = await client.get("/v2")
        _, _, model = await client.get("/v2/models/any/versions/7")
        _, _, live = await client.get("/v2/health/live")

    assert server.startswith('{"name":"text-generation-inference","version":"')
    assert server.endswith('"extensions":["health","models","metrics"]}')
    assert model == '{"name":"any","version":"7","extensions":["infer","ready"]}'
    assert live == '{"live":true}'


async def test_a_vertex_chats_tools_are_asked_for_and_what_comes_is_not_read():
    tool = {"type": "function", "function": {"name": "look", "parameters": {"properties": {}}}}
    call = '{"function": {"_name": "look"}}'
    chat = {"messages": [{"role": "user", "content": "x"}], "tools": [tool], "stream": True}
    limits = {"max_input_tokens": 900, "max_total_tokens": 1000}
    async with serving(answering(call), limits=limits) as client:
        requests = client.record_requests()
        status, _, reply = await client.post("/vertex", {"instances": [chat]})

    assert (status, reply) == (200, {"predictions": [call]})
    assert [request.grammar.kind for request in requests] == ["json_schema"]


@pytest.mark.parametrize(
    ("template", "chat", "kind"),
    [
        ("", {}, "template_error"),
        ("{{ tone.word }}", {}, "missing_template_variable"),
        (
            None,
            {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "g"},
            "tool_error",
        ),
    ],
)
async def test_a_vertex_chats_own_errors_are_told(template, chat, kind):
    instance = {"messages": [{"role": "user", "content": "x"}], **chat}
    async with serving(template=template) as client:
        status, _, reply = await client.post("/vertex", {"instances": [instance]})

    assert (status, reply["error_type"]) == (422, kind)


@pytest.mark.parametrize(("parameters", "samples"), [(None, True), ({}, False), (FOUR, False)])
async def test_infer_samples_unless_it_has_parameters(parameters, samples):
    async with serving() as client:
        requests = client.record_requests()
        await client.post(INFER, infer_body(b"x", parameters=parameters))

    assert [request.sampling.do_sample for request in requests] == [samples]


async def test_kserve_tells_the_real_health():
    paths = ("/v2/health/ready", "/v2/models/any/versions/7/ready", "/v2/health/live")
    async with serving() as client:
        well = [(await client.get(path))[::2] for path in paths]
        client.engine.close()
        await client.engine.closed.wait()
        ended = [(await client.get(path))[::2] for path in paths]

    assert well == [(200, '{"live":true}')] * 3
    assert ended == [(503, '{"live":false}')] * 3
