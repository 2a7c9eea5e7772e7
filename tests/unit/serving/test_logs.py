from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.logs import (
    JsonFormatter,
    Span,
    TextFormatter,
    duration_text,
    in_spans,
    log_span,
    parse_filter,
)


def record(message: str = "hello %s", *args: object, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord(
        "tgi_cli.runtime.serving.launch", logging.INFO, "/x/launch.py", 17, message, args, None
    )
    vars(made).update(extra)
    return made


def test_json_lines_have_the_fields_that_tools_look_for() -> None:
    line = json.loads(JsonFormatter(None).format(record("hello %s", "you", total_time_s=0.25)))

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "INFO",
        "message": "hello you",
        "target": "tgi_cli::runtime::serving::launch",
        "filename": "launch.py",
        "line_number": 17,
        "total_time_s": 0.25,
    }


def test_an_engines_lines_say_which_it_is() -> None:
    line = json.loads(JsonFormatter(1).format(record("up")))

    assert line["span"] == {"name": "shard-manager", "rank": 1}
    assert line["spans"] == [line["span"]]
    assert "shard-manager{rank=1}: " in TextFormatter(1, colour=False).format(record("up"))


def test_text_lines_say_when_how_bad_and_where() -> None:
    line = TextFormatter(None, colour=False).format(record("hello %s", "you", seed=3))

    assert line.endswith(
        "Z  INFO tgi_cli::runtime::serving::launch: launch.py:17: hello you seed=3"
    )


def test_warnings_are_called_as_the_old_server_called_them() -> None:
    made = record("careful")
    made.levelno, made.levelname = logging.WARNING, "WARNING"

    assert json.loads(JsonFormatter(None).format(made))["level"] == "WARN"


def test_a_message_cannot_end_its_line_early_in_json() -> None:
    assert "\n" not in JsonFormatter(None).format(record("two\nlines"))


def test_a_traceback_is_one_field() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()

    assert "ValueError: x" in json.loads(JsonFormatter(None).format(made))["exception"]


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan")])
def test_any_field_can_be_written(value: object) -> None:
    assert json.loads(JsonFormatter(None).format(record("x", field=value)))


def test_a_line_says_in_which_spans_it_is() -> None:
    with log_span(Span("HTTP request", {"http.route": "/x"}), Span("generate", {"seed": 3})):
        line = json.loads(JsonFormatter(None).format(record()))
        text = TextFormatter(None, colour=False).format(record())
    after = json.loads(JsonFormatter(None).format(record()))

    outer, inner = {"name": "HTTP request", "http.route": "/x"}, {"name": "generate", "seed": 3}
    assert (line["span"], line["spans"]) == (inner, [outer, inner])
    assert ' INFO HTTP request{http.route="/x"}:generate{seed=3}: tgi_cli::' in text
    assert "spans" not in after


def test_a_line_can_name_the_spans_that_it_belongs_to() -> None:
    made = record(**in_spans(Span("generate")))

    with log_span(Span("another request")):
        line = json.loads(JsonFormatter(None).format(made))

    assert line["spans"] == [{"name": "generate"}]


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2J", "a\rb", "a\u2028b"])
def test_a_message_cannot_forge_a_line_of_text(text: str) -> None:
    line = TextFormatter(None, colour=False).format(record("%s", text, field=text))

    assert line.isprintable()


@pytest.mark.parametrize("formatter", [JsonFormatter(None), TextFormatter(None, colour=False)])
def test_half_a_character_can_be_written(formatter: logging.Formatter) -> None:
    with log_span(Span("x", {"text": "\ud800"})):
        formatter.format(record("%s", "\ud800", field="\ud800")).encode("utf-8", "replace")


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (1_234_567_000, "1.234567s"),
        (12_300_000, "12.3ms"),
        (450_000, "450µs"),
        (17, "17ns"),
        (0, "0ns"),
        (60_000_000_000, "60s"),
        (1_000_000_001, "1.000000001s"),
        (999_999, "999.999µs"),
    ],
)
def test_durations_are_written_as_the_old_server_wrote_them(duration_ns: int, text: str) -> None:
    assert duration_text(duration_ns) == text


@given(st.integers(0, 10**15))
def test_durations_lose_nothing(duration_ns: int) -> None:
    text = duration_text(duration_ns)

    digits = text.rstrip("nµms")
    scale = {"ns": 1, "µs": 10**3, "ms": 10**6, "s": 10**9}[text[len(digits) :]]
    whole, _, decimals = digits.partition(".")
    assert int(whole) * scale + int(decimals.ljust(len(str(scale)) - 1, "0") or 0) == duration_ns


@pytest.mark.parametrize(
    ("expression", "level", "targets"),
    [
        ("info", logging.INFO, {}),
        ("WARN", logging.WARNING, {}),
        ("error,", logging.ERROR, {}),
        (
            "info,text_generation_router=debug",
            logging.INFO,
            {"tgi_cli.runtime.router": logging.DEBUG},
        ),
        (
            " asyncio=trace , warn, tgi_cli::runtime::text=error",
            logging.WARNING,
            {"asyncio": logging.DEBUG, "tgi_cli.runtime.text": logging.ERROR},
        ),
        ("[span{field=1}]=nonsense,debug", logging.DEBUG, {}),
        ("", logging.INFO, {}),
    ],
)
def test_filters_are_read(expression: str, level: int, targets: dict[str, int]) -> None:
    assert parse_filter(expression) == (level, targets)


def test_a_filter_lets_through_what_it_names() -> None:
    program = """
import logging
from tgi_cli.runtime.config.resolved import LogConfig
from tgi_cli.runtime.logs import configure_logging
configure_logging(LogConfig(level="warn,text_generation_router=debug,noisy=off", json=True))
for name in ("tgi_cli.runtime.serving.launch", "tgi_cli.runtime.router.service", "other", "noisy"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(name).log(level, "x")
"""

    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stderr

    lines = [json.loads(line) for line in printed.splitlines()]
    assert [(line["target"].rpartition("::")[2], line["level"]) for line in lines] == [
        ("launch", "WARN"),
        ("service", "DEBUG"),
        ("service", "INFO"),
        ("service", "WARN"),
        ("other", "WARN"),
    ]
