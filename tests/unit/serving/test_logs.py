from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from tgi_cli.runtime.logs import JsonFormatter, TextFormatter


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
