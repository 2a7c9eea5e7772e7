"""Sections 1 to 5, 13 to 15 and 18 of spec/http-api.md, rule by rule, and the tests that hold each.

Marks: K kept exactly, F mended as the spec says, O optional there. A rule without a test says why.
The tests here only see that the named tests exist; those are what holds the rules.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

FOLDERS = [Path(__file__).parent, Path(__file__).parents[1] / "unit/router"]


@dataclass(frozen=True)
class Rule:
    section: str
    mark: Literal["K", "F", "O"]
    text: str
    tests: list[str] = field(default_factory=list)  # "file::test", without "test_"
    reason: str = ""  # why there is none here


RULES = [
    Rule(
        "1",
        "K",
        "each path with its method and handler",
        [
            "routes::every_registered_route_is_in_the_table",
            "openapi::every_operation_of_tgi_is_there_with_its_statuses",
        ],
    ),
    Rule(
        "1",
        "K",
        "which of them need the key",
        [
            "routes::posts_need_a_key_and_gets_do_not",
            "routes::a_key_is_asked_for_exactly_where_the_table_says",
        ],
    ),
    Rule(
        "1",
        "K",
        "`/` answers an array of one, or streams",
        ["generate::the_root_route_replies_a_list_and_streams_if_asked"],
    ),
    Rule(
        "1",
        "K",
        "/invocations: inputs, messages, prompt, tried in that order",
        [
            "cloud_routes::invocations_answer_as_the_first_kind_that_fits",
            "cloud_routes::invocations_stream_as_their_kind_does",
        ],
    ),
    Rule(
        "1",
        "F",
        "/chat_tokenize is open unless the operator protects it",
        ["routes::chat_tokenize_is_protected_only_when_asked"],
    ),
    Rule(
        "1",
        "F",
        "Vertex's and KServe's inference want the key",
        ["routes::posts_need_a_key_and_gets_do_not"],
    ),
    Rule(
        "1",
        "O",
        "AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE are routes when set",
        ["cloud_routes::vertex_paths_are_what_the_environment_says"],
    ),
    Rule(
        "1",
        "O",
        "/docs, which /docs/ leads to, and the document",
        ["openapi::the_server_shows_its_document_and_a_page_for_it"],
    ),
    Rule(
        "1",
        "K",
        "unknown path: 404, empty; wrong method: 405, empty, with Allow",
        [
            "transport::unknown_paths_and_methods_have_empty_bodies",
            "routes::another_method_is_a_405_with_an_empty_body",
        ],
    ),
    Rule("1", "K", "HEAD wherever GET", ["routes::head_answers_as_get_does_without_the_body"]),
    Rule(
        "2.1", "K", "415 for another content type", ["transport::only_json_content_types_are_read"]
    ),
    Rule(
        "2.1",
        "K",
        "400 for what is no JSON, with its prefix",
        [
            "transport::malformed_json_is_a_400_in_plain_text",
            "bad_input::what_is_no_json_is_refused",
        ],
    ),
    Rule(
        "2.1",
        "K",
        "422 for a wrong type, with path, line and column",
        ["transport::mistyped_json_is_a_422_that_names_the_place"],
    ),
    Rule(
        "2.1",
        "K",
        "413 over the payload limit, before the body is read",
        [
            "transport::a_body_over_the_limit_is_a_413",
            "http_limits::a_length_over_the_limit_is_refused_before_the_body_comes",
        ],
    ),
    Rule(
        "2.1",
        "F",
        "the same as JSON if the client asks for it",
        ["http_limits::a_client_that_asks_for_json_gets_body_errors_in_json"],
    ),
    Rule(
        "2.1",
        "F",
        "a key given twice: the later wins",
        ["bad_input::a_key_may_be_given_twice", "bad_input::the_later_of_two_equal_keys_wins"],
    ),
    Rule(
        "2.1",
        "F",
        "null is absent, for every field",
        [
            "generate::null_and_neutral_values_mean_absent",
            "openai::null_stream_options_and_content_parts_are_accepted",
        ],
    ),
    Rule(
        "2.1",
        "K",
        "numbers that don't fit their type fail at decoding",
        ["bad_input::sizes_that_no_request_can_have_are_refused"],
    ),
    Rule(
        "2.2",
        "K",
        "401 with an empty body",
        ["transport::the_key_guards_inference_and_nothing_else"],
    ),
    Rule(
        "2.2",
        "F",
        "the scheme in any case, the key exactly, in constant time",
        ["api_keys::each_key_opens_with_any_case_of_the_scheme_only"],
    ),
    Rule(
        "2.2",
        "O",
        "more keys from a file, read again when it changes",
        [
            "api_keys::a_changed_file_is_read_again",
            "api_keys::a_spoilt_file_keeps_the_keys_and_is_reported_once",
            "routes::keys_of_a_file_are_taken",
        ],
    ),
    Rule(
        "2.3",
        "K",
        "allowed origins, methods and headers; vary on every response",
        ["transport::cross_origin_headers"],
    ),
    Rule("2.3", "F", "authorization is an allowed header", ["transport::cross_origin_headers"]),
    Rule(
        "2.4",
        "K",
        "traceparent is the parent of the server's span",
        reason="test_traces.py has the rules of tracing",
    ),
    Rule(
        "2.4",
        "K",
        "ngrok's options end the start",
        reason="test_launcher_options.py has the rules of options",
    ),
    Rule(
        "3",
        "K",
        "/health, /ping and /: 200 and empty, or 503 with JSON",
        [
            "transport::health_is_empty_and_answers_head",
            "transport::health_is_503_while_draining_and_after_the_engines_end",
        ],
    ),
    Rule(
        "3",
        "K",
        "no answer before the warm-up is over",
        reason="the port isn't open; tests/integration/test_lifecycle.py",
    ),
    Rule(
        "3",
        "K",
        "a failed step is unhealthy until a probe's step works",
        ["health::a_failed_step_shows_until_a_probe_step_works"],
    ),
    Rule(
        "3",
        "F",
        "probes answer from state, at once",
        ["health::an_engine_that_is_silent_with_work_is_stalled"],
    ),
    Rule(
        "3",
        "F",
        "/health/live and /health/ready",
        [
            "health::an_idle_server_is_well",
            "health::a_draining_server_lives_but_takes_nothing_more",
            "health::nobody_is_well_after_the_engines_end",
            "health::work_after_a_long_rest_is_no_stall",
        ],
    ),
    Rule(
        "4", "K", "/info: TGI's keys in TGI's order", ["transport::info_lists_tgis_keys_in_order"]
    ),
    Rule(
        "4",
        "O",
        "/info: the keys of versions up to 2 after them",
        ["routes::info_shows_what_the_build_says"],
    ),
    Rule("4", "K", "/v1/models lists the served model", ["transport::the_served_model_is_listed"]),
    Rule(
        "4",
        "F",
        "/v1/models/{id}; adapters after the model",
        ["transport::the_served_model_is_listed", "routes::adapters_are_listed_after_the_model"],
    ),
    Rule(
        "5.1",
        "K",
        "validation, 422",
        ["generate::parameters_out_of_range_are_refused_with_their_texts"],
    ),
    Rule(
        "5.1",
        "K",
        "overloaded, 429",
        ["load::the_request_after_the_last_permit_is_refused_at_once"],
    ),
    Rule(
        "5.1", "K", "generation, 424", ["generate::an_engine_failure_is_a_424_and_an_error_event"]
    ),
    Rule(
        "5.1",
        "K",
        "template_error and missing_template_variable, 422",
        ["openai::a_template_error_keeps_its_status_on_a_stream"],
    ),
    Rule(
        "5.1",
        "K",
        "healthcheck, 503",
        ["transport::health_is_503_while_draining_and_after_the_engines_end"],
    ),
    Rule(
        "5.1",
        "K",
        "suffix not supported, batch size exceeded, 422",
        ["completions::completions_refuse_suffix_too_many_prompts_and_none"],
    ),
    Rule("5.1", "K", "headers, no details, 500", reason="ours can't fail there"),
    Rule(
        "5.1",
        "K",
        "Input validation error: Vertex without instances, 422",
        ["cloud_routes::bad_vertex_calls_say_why"],
    ),
    Rule(
        "5.1",
        "F",
        "Vertex and KServe pass an inner error through",
        ["cloud_routes::an_engine_failure_behind_vertex_and_kserve_keeps_its_own_error"],
    ),
    Rule(
        "5.1",
        "K",
        "utf8 and length mismatch: KServe, 422",
        ["cloud_routes::bad_infer_calls_say_why"],
    ),
    Rule(
        "5.2",
        "K",
        "native streams: status 200, an error event, no mark",
        [
            "transcripts::native_stream_that_is_refused",
            "generate::an_engine_failure_is_a_424_and_an_error_event",
        ],
    ),
    Rule(
        "5.2",
        "F",
        "OpenAI's streams: the true code, then the mark",
        [
            "transcripts::chat_stream_of_a_full_server",
            "completions::errors_of_a_stream_are_an_event_with_the_true_status",
        ],
    ),
    Rule(
        "5.2",
        "F",
        "real statuses before an OpenAI stream, as an option",
        ["openai_strict::refusals_have_their_status_and_openais_error_object"],
    ),
    Rule(
        "5.2",
        "K",
        "template and suffix errors keep their status on a stream",
        ["openai::a_template_error_keeps_its_status_on_a_stream"],
    ),
    Rule(
        "13",
        "K",
        "/tokenize: byte offsets; not a request for the metrics",
        ["transport::tokenize_gives_byte_offsets"],
    ),
    Rule(
        "14",
        "K",
        "/vertex: predictions in order, 1 + instances requests counted",
        ["cloud_routes::predictions_come_in_order_with_their_own_parameters"],
    ),
    Rule(
        "14",
        "F",
        "all parameters are honoured; sampling unless told not to",
        ["cloud_routes::vertex_instances_sample_unless_told_not_to"],
    ),
    Rule(
        "15",
        "K",
        "infer, model, server, ready and live",
        [
            "cloud_routes::infer_answers_in_the_order_of_its_inputs",
            "cloud_routes::kserve_names_itself",
        ],
    ),
    Rule(
        "15",
        "F",
        "outputs in the order of the inputs",
        ["cloud_routes::infer_answers_in_the_order_of_its_inputs"],
    ),
    Rule(
        "15",
        "F",
        "ready and live follow the real health",
        ["health::a_draining_server_lives_but_takes_nothing_more"],
    ),
    Rule(
        "17",
        "K",
        "TGI's own document is part of ours, but for the listed differences",
        ["openapi::every_field_of_tgi_is_there"],
    ),
    Rule(
        "18",
        "K",
        "the transcripts",
        [
            "transcripts::native_stream_with_details",
            "transcripts::native_stream_that_is_refused",
            "transcripts::chat_stream_with_usage",
            "transcripts::chat_stream_of_a_full_server",
            "transcripts::completion_stream",
        ],
    ),
]


@cache
def names_in(name: str) -> frozenset[str]:
    """Return the names of the tests in test_`name`.py, without "test_"."""
    path = next(path for folder in FOLDERS if (path := folder / f"test_{name}.py").exists())
    return frozenset(
        node.name.removeprefix("test_")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.section} {rule.text}")
def test_each_rule_has_its_tests(rule):
    named = [each.split("::") for each in rule.tests]

    missing = [f"{file}::{test}" for file, test in named if test not in names_in(file)]

    assert missing == []
    assert bool(named) != bool(rule.reason)
