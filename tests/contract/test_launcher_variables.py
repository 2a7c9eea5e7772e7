"""Variables with rules of their own: spec/launcher-options.md section 5."""

from __future__ import annotations

import pytest

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.env import merge
from tgi_cli.runtime.config.options import ServeOptions


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_TOKEN": "1", "HUGGING_FACE_HUB_TOKEN": "2", "HF_API_TOKEN": "3"}, "1"),
        ({"HUGGING_FACE_HUB_TOKEN": "2", "HF_API_TOKEN": "3"}, "2"),
        ({"HF_API_TOKEN": "3"}, "3"),
        ({}, None),
    ],
)
def test_the_hubs_token_has_three_names(environ: dict[str, str], expected: str | None) -> None:
    assert merge({}, environ)[0].hf_token == expected


@pytest.mark.parametrize(
    ("environ", "field", "expected"),
    [
        ({"REQUEST_LOGPROBS": "1"}, "enable_prefill_logprobs", True),
        ({"OMP_NUM_THREADS": "7"}, "cpu_threads", 7),
        ({"OMP_NUM_THREADS": "7", "CPU_THREADS": "5"}, "cpu_threads", 5),
        ({"LOG_FORMAT": "json"}, "json_output", True),
        ({"LOG_FORMAT": "json", "JSON_OUTPUT": "false"}, "json_output", False),
        ({"LOG_FORMAT": "compact"}, "json_output", False),
        ({"LOG_LEVEL": "warn"}, "log_level", "warn"),
        ({"LOG_LEVEL": "a::b=debug,warn"}, "log_level", "a::b=debug,warn"),
        ({"LOG_COLORIZE": "1"}, "log_colorize", True),
        ({"CORS_ALLOW_ORIGIN": "a, b"}, "cors_allow_origin", ("a", "b")),
    ],
)
def test_variables_with_rules_of_their_own(
    environ: dict[str, str], field: str, expected: object
) -> None:
    assert getattr(merge({}, environ)[0], field) == expected


VERTEX = {"AIP_HTTP_PORT": "8080", "AIP_PREDICT_ROUTE": "/p", "AIP_HEALTH_ROUTE": "/h"}


@pytest.mark.parametrize(
    ("flags", "environ", "port", "num_warnings"),
    [
        ({}, VERTEX, 8080, 0),
        ({}, VERTEX | {"PORT": "80"}, 8080, 0),  # images set PORT
        ({"port": 80}, VERTEX, 8080, 1),
        ({"port": 8080}, VERTEX, 8080, 0),
    ],
)
def test_vertex_has_its_port(
    flags: dict[str, object], environ: dict[str, str], port: int, num_warnings: int
) -> None:
    options, warnings = merge(flags, environ)

    assert (options.port, len(warnings)) == (port, num_warnings)
    assert (options.aip_predict_route, options.aip_health_route) == ("/p", "/h")


@pytest.mark.parametrize("name", ["AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE"])
@pytest.mark.parametrize("path", ["predict", "/a b", "/{x}", "http://h/p", "/a?b", "/é"])
def test_a_vertex_path_that_is_none_ends_the_start(name: str, path: str) -> None:
    with pytest.raises(ArgumentError, match=f"invalid value for `{name}`: .* is not a path"):
        merge({}, {name: path})


SAGEMAKER = {
    "HF_MODEL_ID": "org/name",
    "HF_MODEL_REVISION": "v1",
    "SM_NUM_GPUS": "1",
    "HF_MODEL_QUANTIZE": "gptq",
    "HF_MODEL_TRUST_REMOTE_CODE": "true",
}


def test_sagemakers_variables_stand_in_for_ours() -> None:
    options, _ = merge({}, SAGEMAKER)

    assert options == ServeOptions(
        model_id="org/name",
        revision="v1",
        num_shard=1,
        quantize="gptq",
        trust_remote_code=True,
        port=8080,
    )


@pytest.mark.parametrize(
    ("flags", "environ"),
    [({"model_id": "mine"}, {}), ({}, {"MODEL_ID": "mine"}), ({}, {"TGI_MODEL_ID": "mine"})],
)
def test_a_model_of_ours_silences_sagemakers(
    flags: dict[str, object], environ: dict[str, str]
) -> None:
    assert merge(flags, environ | SAGEMAKER)[0] == ServeOptions(model_id="mine")


def test_sagemaker_without_a_model_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"^HF_MODEL_ID must be set$"):
        merge({}, {"SM_NUM_GPUS": "1", "HF_MODEL_ID": ""})


@pytest.mark.parametrize(("environ", "port"), [({"PORT": "80"}, 80), ({"TGI_PORT": "81"}, 81)])
def test_sagemakers_port_is_only_a_default(environ: dict[str, str], port: int) -> None:
    assert merge({}, {"HF_MODEL_ID": "org/name"} | environ)[0].port == port
