from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.env import merge
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.settings import SETTINGS


def test_every_field_of_the_options_is_in_the_table_once() -> None:
    fields = [field.name for field in dataclasses.fields(ServeOptions)]

    assert sorted(setting.name for setting in SETTINGS) == sorted(fields)


def test_no_two_settings_share_a_variable() -> None:
    names = [name for setting in SETTINGS for name in setting.variables]

    assert len(names) == len(set(names))


def test_nothing_said_gives_the_defaults() -> None:
    assert merge({}, {}) == (ServeOptions(), ())


def test_the_flag_wins_over_both_variables() -> None:
    options, warnings = merge({"port": 1}, {"TGI_PORT": "2", "PORT": "3"})

    assert options.port == 1
    assert warnings == ()


def test_the_prefixed_variable_wins_and_a_difference_is_told_once() -> None:
    options, warnings = merge({}, {"TGI_PORT": "2", "PORT": "3"})

    assert options.port == 2
    assert warnings == ("TGI_PORT and PORT differ; TGI_PORT is used",)


def test_equal_variables_are_no_difference() -> None:
    assert merge({}, {"TGI_PORT": "2", "PORT": "2"})[1] == ()


@pytest.mark.parametrize("name", ["PORT", "TGI_PORT", "JSON_OUTPUT", "API_KEY", "MODEL_ID"])
def test_an_empty_variable_is_unset(name: str) -> None:
    assert merge({}, {name: ""}) == (ServeOptions(), ())


def test_an_empty_prefixed_variable_leaves_the_plain_one() -> None:
    assert merge({}, {"TGI_PORT": "", "PORT": "81"})[0].port == 81


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "On"])
def test_switches_take_every_word_for_true(text: str) -> None:
    assert merge({}, {"JSON_OUTPUT": text})[0].json_output is True


@pytest.mark.parametrize("text", ["false", "0", "No", "OFF"])
def test_switches_take_every_word_for_false(text: str) -> None:
    assert merge({}, {"LOG_COLORIZE": text})[0].log_colorize is False


@pytest.mark.parametrize("text", ["no-stack", "no_stack"])
def test_values_take_hyphens_and_underscores(text: str) -> None:
    assert merge({}, {"USAGE_STATS": text})[0].usage_stats == "no-stack"


def test_lists_are_split_at_commas() -> None:
    options, _ = merge({}, {"CORS_ALLOW_ORIGIN": "https://a.example, https://b.example"})

    assert options.cors_allow_origin == ("https://a.example", "https://b.example")


def test_the_usual_thread_variable_is_read_last() -> None:
    assert merge({}, {"OMP_NUM_THREADS": "7"})[0].cpu_threads == 7
    assert merge({}, {"OMP_NUM_THREADS": "7", "CPU_THREADS": "5"}) == (
        ServeOptions(cpu_threads=5),
        (),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "8e3"),
        ("PORT", "1_000"),
        ("PORT", "\u0663"),
        ("JSON_OUTPUT", "maybe"),
        ("DTYPE", "float8"),
        ("TGI_WIGGLE_ROOM", "1.5"),
        ("TGI_WIGGLE_ROOM", "nan"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(name: str, text: str) -> None:
    with pytest.raises(ArgumentError, match=f"invalid value for `{name}`"):
        merge({}, {name: text})


@settings(max_examples=100, deadline=None)
@given(
    values=st.dictionaries(
        st.sampled_from([name for setting in SETTINGS for name in setting.variables]),
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12),
    )
)
def test_any_environment_gives_options_or_an_argument_error(values: dict[str, str]) -> None:
    try:
        options, _ = merge({}, values)
    except ArgumentError:
        return

    assert isinstance(options, ServeOptions)
