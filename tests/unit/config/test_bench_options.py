"""Flags, `--config` and the environment's key make one set of options, or are refused."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from tgi_cli.errors import UsageError
from tgi_cli.runtime.config.bench import (
    BENCH_SETTINGS,
    BenchOptions,
    read_options,
    redacted_argv,
    run_toml,
    shown_options,
)

_BY_NAME = {setting.name: setting for setting in BENCH_SETTINGS}
_NO_FIELD = {"config", "api_key_env"}


def parsed(**texts):
    """Return flags as the command line hands them over."""
    flags = {}
    for name, text in texts.items():
        setting = _BY_NAME[name]
        raw = setting.is_switch or setting.is_repeated
        flags[name] = text if raw else setting.parse(text)
    return flags


def options(environ=None, **texts):
    return read_options(parsed(**texts), environ or {})


def test_every_field_has_a_setting_and_the_other_way_round():
    fields = {field.name for field in dataclasses.fields(BenchOptions)}

    assert set(_BY_NAME) - _NO_FIELD == fields


def test_defaults_read_as_they_are_written():
    for setting in BENCH_SETTINGS:
        if setting.default in (None, ()) or setting.is_switch:
            continue

        assert setting.parse(setting.write(setting.default)) == setting.default, setting.name


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('rate = [2, 4.5]\nmax-errors = "5%"\nseed = 7\nno-save = true\ndrain = 9\n')

    found = options(config=str(file), seed="8")

    assert found.rate == (2.0, 4.5)
    assert found.max_errors.other == 0.05
    assert found.seed == 8
    assert not found.save
    assert found.drain == 9.0


def test_tables_and_lists_of_a_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'header = ["X-A: b"]\nslo = "ttft.p99<1s"\n[body]\nuser = "me"\n'
        '[goodput]\nttft = "500ms"\n[meta]\nbuild = 12\n'
    )

    found = options(config=str(file))

    assert found.header == (("X-A", "b"),)
    assert found.slo == ("ttft.p99<1s",)
    assert found.body == {"user": "me"}
    assert found.goodput == (("ttft", 0.5),)
    assert found.meta == (("build", "12"),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("concurency = 4", "no option 'concurency'"),
        ("max-errors = 1\nmax_errors = 2", "twice"),
        ("save = true\nno-save = false", "twice"),
        ("save = 1", "true or false"),
        ("duration = -1", "not a time"),
        ("drain = true", "not expected"),
        ("config = 'x'", "no option"),
        ("a = ", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, text, reason):
    file = tmp_path / "run.toml"
    file.write_text(text)

    with pytest.raises(UsageError, match=reason):
        options(config=str(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        options(config=str(tmp_path / "none.toml"))


def test_a_run_can_be_repeated_from_what_is_written(tmp_path):
    asked = options(
        rate="2,4.25",
        arrival="gamma",
        burstiness="0.3",
        input_tokens="lognormal:median=400,sigma=0.8,max=900",
        output_tokens="choice:7@3,9@1",
        shared_prefix="64x8,zipf=1.1",
        warmup="25",
        cancel="5%@2s",
        goodput="ttft=500ms,tpot=0.05s",
        slo=["ttft.p99<500ms", "goodput>=95%"],
        meta=["note=a \"quoted\" ü\x7f\n line"],
        body='{"stop": ["\\u0000", "\\ud83d\\ude00"]}',
        until_ci="5%",
        seed="1234567890123456789",
        save_text=True,
        tail_load=False,
    )  # fmt: skip
    file = tmp_path / "run.toml"
    file.write_text(run_toml(asked), encoding="utf-8")

    assert options(config=str(file)) == asked


def test_secrets_are_written_nowhere():
    asked = options(
        environ={"TGI_API_KEY": "sk-key"}, header=["Authorization: hunter2"], api_key="sk-flag"
    )

    for text in (run_toml(asked), str(shown_options(asked)), repr(asked)):
        assert "sk-" not in text
        assert "hunter2" not in text
    assert "Authorization" in run_toml(asked)
    assert tomllib.loads(run_toml(asked)) == {}


def test_arguments_are_shown_without_secrets():
    argv = ["bench", "--api-key", "k1", "--api-key=k2", "-H", "X: s1", "-HX:s2", "--header=X: s3",
            "--rate", "2"]  # fmt: skip

    shown = redacted_argv(argv)

    assert not {"k1", "k2", "s1", "s2", "s3"} & set("".join(shown).split())
    assert all(secret not in " ".join(shown) for secret in ("k1", "k2", "s1", "s2", "s3"))
    assert shown[-2:] == ["--rate", "2"]


@pytest.mark.parametrize(
    ("environ", "texts", "key"),
    [
        ({}, {}, None),
        ({"TGI_API_KEY": "a", "OPENAI_API_KEY": "b"}, {}, "a"),
        ({"TGI_API_KEY": "", "OPENAI_API_KEY": "b"}, {}, "b"),
        ({"TGI_API_KEY": "a", "MINE": "c"}, {"api_key_env": "MINE"}, "c"),
        ({"TGI_API_KEY": "a"}, {"api_key": "d"}, "d"),
    ],
)
def test_where_the_key_comes_from(environ, texts, key):
    assert options(environ, **texts).api_key == key


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"rate": "2", "concurrency": "4"}, "one load"),
        ({"offline": True, "sweep": True}, "one load"),
        ({"conversations": "f", "rate": "2", "concurrency": "4"}, "one load"),
        ({"conversations": "f", "burst": "2"}, "one load"),
        ({"arrival": "constant"}, "--arrival needs"),
        ({"sweep": True, "arrival": "constant"}, "--arrival needs"),
        ({"rate": "2", "arrival": "constant", "burstiness": "2"}, "--burstiness needs"),
        ({"rate": "2", "think_time": "1s"}, "--think-time needs"),
        ({"max_concurrency": "4"}, "--max-concurrency needs"),
        ({"rate": "2", "trace_speed": "2"}, "--trace-speed needs"),
        ({"ramp": "1..2/3s", "duration": "9s"}, "--duration"),
        ({"ramp": "1..2.5/3s", "ramp_kind": "concurrency"}, "whole numbers"),
        ({"dataset": "a", "text": "b"}, "one source"),
        ({"dataset": "a", "input_tokens": "5"}, "--input-tokens needs"),
        ({"trace": "a", "output_tokens": "5"}, "--output-tokens needs"),
        ({"prefix_cache": "prime"}, "needs --shared-prefix"),
        ({"shared_prefix": "512"}, "leave nothing"),
        ({"send_token_ids": True, "protocol": "chat"}, "no input as token ids"),
        ({"save": False, "out": "x"}, "--out needs"),
        ({"strict": True}, "--strict needs"),
        ({"api_key": "a", "api_key_env": "B"}, "not both"),
        ({"api_key_env": "UNSET"}, "not set"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_by_name(texts, reason):
    with pytest.raises(UsageError, match=reason) as raised:
        options(**texts)

    assert raised.value.exit_code == 2


def test_burstiness_alone_asks_for_gamma_gaps():
    assert options(rate="2", burstiness="0.5").arrival == "gamma"
