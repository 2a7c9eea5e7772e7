from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.config.probe import ProbeOptions, Target, UsageError, read_options, read_url


def options(*argv: str, **environ: str) -> ProbeOptions:
    read = read_options(argv, environ)
    assert read is not None
    return read


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        ((), {}, "http://127.0.0.1:3000"),
        ((), {"PORT": "80"}, "http://127.0.0.1:80"),
        ((), {"PORT": "80", "TGI_PORT": "81"}, "http://127.0.0.1:81"),
        ((), {"PORT": ""}, "http://127.0.0.1:3000"),
        ((), {"PORT": "80", "TGI_URL": "http://there:8080/x/"}, "http://there:8080/x"),
        (("--port", "7"), {"TGI_URL": "http://there:8080"}, "http://127.0.0.1:7"),
        (("--host", "::1"), {"PORT": "80"}, "http://[::1]:80"),
        (("https://there",), {"TGI_URL": "http://no"}, "https://there:443"),
        (("there",), {}, "http://there:3000"),
        (("unix:/run/tgi.sock",), {}, "unix:/run/tgi.sock"),
    ],
)
def test_the_server_is_the_one_named_else_the_one_this_container_would_start(
    argv: tuple[str, ...], environ: dict[str, str], expected: str
) -> None:
    assert str(options(*argv, **environ).target) == expected


@pytest.mark.parametrize(
    ("argv", "expected_s"),
    [
        ((), 3.0),
        (("--level", "live"), 1.0),
        (("--level=deep",), 30.0),
        (("--timeout", "250ms"), 0.25),
        (("--timeout", "1.5"), 1.5),
        (("--timeout", "2m"), 120.0),
    ],
)
def test_the_time_limit_follows_the_level(argv: tuple[str, ...], expected_s: float) -> None:
    assert options(*argv).timeout_s == expected_s


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--level", "sick"), "invalid choice: 'sick'"),
        (("--timeout", "0s"), "--timeout is '0s'"),
        (("--timeout", "soon"), "--timeout is 'soon'"),
        (("--port", "65536"), "65536"),
        (("--pid", "-3"), "--pid"),
        (("ftp://there",), "is not a URL"),
        (("http://a b",), "is not a URL"),
        (("unix:",), "needs the path"),
        (("http://there", "--port", "3"), "not both"),
        (("--unknown",), "unrecognized arguments"),
    ],
)
def test_what_cannot_be_understood_exits_with_1_or_with_64(
    argv: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as simple:
        read_options(argv, {})
    with pytest.raises(UsageError) as full:
        read_options((*argv, "--codes", "full"), {})

    assert (simple.value.exit_code, full.value.exit_code) == (1, 64)


@given(
    host=st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
    port=st.integers(1, 65535),
    path=st.from_regex(r"(/[a-z0-9]{1,5}){0,3}", fullmatch=True),
    is_tls=st.booleans(),
)
def test_a_url_read_and_written_is_the_same(host: str, port: int, path: str, is_tls: bool) -> None:
    target = Target(host, port, path, is_tls)

    assert read_url(str(target)) == target


@given(st.text())
def test_any_text_is_a_server_or_a_mistake(text: str) -> None:
    try:
        target = read_url(text)
    except ValueError:
        return
    assert 1 <= target.port <= 65535
