"""What a probe is asked to do: flags, then variables, then defaults."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

LEVELS = ("live", "ready", "deep")
CODES = ("simple", "full")
USAGE = 64  # sysexits.h; with --codes simple it is 1
_TIMEOUTS_S = {"live": 1.0, "ready": 3.0, "deep": 30.0}
_UNITS_S = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_URL = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^:/?#@\s\[\]]+)"
    r"(?::(?P<port>\d{1,5}))?(?P<path>/[^?#\s]*)?"
)


class Target(NamedTuple):
    """Where the server is: a Unix socket if `socket_path` is set, else host and port."""

    host: str
    port: int
    path: str = ""  # in front of every route
    is_tls: bool = False
    socket_path: str | None = None

    def __str__(self) -> str:
        if self.socket_path is not None:
            return f"unix:{self.socket_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.is_tls else ''}://{host}:{self.port}{self.path}"


class ProbeOptions(NamedTuple):
    target: Target
    level: str = "ready"  # one of LEVELS
    timeout_s: float = 3.0  # of one try, connecting and reading together
    wait_s: float | None = None  # try again for so long
    pid: int | None = None  # stop waiting when this process is gone
    api_key: str | None = None
    model: str | None = None  # the server must serve this one
    max_ttft_s: float | None = None  # deep: the first token's limit
    codes: str = "simple"  # one of CODES
    is_json: bool = False
    is_quiet: bool = False
    is_human: bool = False  # several lines for a person


class Flag(NamedTuple):
    """One option: argparse, the shells' completions and the reference page are made from these."""

    names: tuple[str, ...]
    help: str
    metavar: str | None = None  # None: a switch
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        return self.names[0].removeprefix("--").replace("-", "_")


URL_HELP = (
    "Server to ask: http://HOST:PORT, or unix:PATH (TGI_URL, else 127.0.0.1:PORT, else 3000)."
)
FLAGS = (
    Flag(("--host",), "Host, in place of a URL.", "HOST"),
    Flag(("--port",), "Port, in place of a URL.", "PORT"),
    Flag(
        ("--level",),
        "live: the process works; ready: it takes requests; deep: it generates a token. "
        "(default: ready)",
        "LEVEL",
        LEVELS,
    ),
    Flag(("--timeout",), "Limit of one try, such as 500ms. (1s live, 3s ready, 30s deep)", "TIME"),
    Flag(("--wait",), "Try again until it is true or this time is over.", "TIME"),
    Flag(("--pid",), "Stop waiting when this process is gone.", "PID"),
    Flag(("--api-key",), "Key for the deep level. (env: TGI_API_KEY, else API_KEY)", "KEY"),
    Flag(("--model",), "Also demand that the server serves this model.", "NAME"),
    Flag(("--max-ttft",), "Deep: demand the first token within this time.", "TIME"),
    Flag(
        ("--codes",),
        "simple: exit with 0 or 1; full: 3 unreachable, 4 timeout, 5 loading or draining, "
        "6 stalled, 7 key, 8 other model, 64 usage. (default: simple)",
        "CODES",
        CODES,
    ),
    Flag(("--json",), "Print one line of JSON."),
    Flag(("--human",), "Print model, limits, queue, batch and KV use. (default on a terminal)"),
    Flag(("--quiet", "-q"), "Print nothing."),
)


class UsageError(Exception):
    """Arguments that can't be understood."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def read_options(
    argv: Sequence[str], environ: Mapping[str, str] = os.environ
) -> ProbeOptions | None:
    """Return the options; None if help was asked for, which is printed.

    Raises:
        UsageError: with the exit code that `--codes` asks for.
    """
    bad_usage = USAGE if "full" in argv or "--codes=full" in argv else 1
    try:
        arguments = _parser().parse_args(argv)
        return _options(arguments, environ)
    except _HelpShown:
        return None
    except ValueError as exc:
        raise UsageError(str(exc), bad_usage) from exc


class _HelpShown(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise _HelpShown


def _parser() -> _Parser:
    parser = _Parser(prog="tgi health", description="Ask a server how it is.", allow_abbrev=False)
    parser.add_argument("url", nargs="?", metavar="URL", help=URL_HELP)
    for flag in FLAGS:
        if flag.metavar is None:
            parser.add_argument(*flag.names, action="store_true", help=flag.help)
        else:
            parser.add_argument(
                *flag.names,
                metavar=flag.metavar,
                choices=flag.choices or None,
                help=flag.help,
            )
    return parser


def _options(arguments: argparse.Namespace, environ: Mapping[str, str]) -> ProbeOptions:
    level = arguments.level or "ready"
    timeout = arguments.timeout
    return ProbeOptions(
        target=_target(arguments.url, arguments.host, arguments.port, environ),
        level=level,
        timeout_s=_TIMEOUTS_S[level] if timeout is None else _duration_s("--timeout", timeout),
        wait_s=_optional_s("--wait", arguments.wait),
        pid=None if arguments.pid is None else _whole("--pid", arguments.pid, 1, 2**31 - 1),
        api_key=arguments.api_key or environ.get("TGI_API_KEY") or environ.get("API_KEY") or None,
        model=arguments.model,
        max_ttft_s=_optional_s("--max-ttft", arguments.max_ttft),
        codes=arguments.codes or "simple",
        is_json=arguments.json,
        is_quiet=arguments.quiet,
        is_human=arguments.human,
    )


def _target(
    url: str | None, host: str | None, port: str | None, environ: Mapping[str, str]
) -> Target:
    """Return the server that was named, else the one that this container would start."""
    if url is not None and (host is not None or port is not None):
        raise ValueError("give a URL or --host and --port, not both")
    if host is None and port is None:
        url = url or environ.get("TGI_URL") or None
    if url is not None:
        return read_url(url)
    port = port or environ.get("TGI_PORT") or environ.get("PORT") or "3000"
    host = (host or "127.0.0.1").strip("[]")
    return Target(host, _whole("the port", port, 1, 65535))


def read_url(url: str) -> Target:
    """Return where a URL leads. Raises `ValueError` for one that isn't http(s) or unix."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path:
            raise ValueError("a unix: URL needs the path of a socket")
        return Target("localhost", 80, socket_path=path)
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{url!r} is not a URL such as http://127.0.0.1:3000")
    is_tls = match["scheme"] == "https"
    usual = "443" if is_tls else "80" if match["scheme"] else "3000"
    port = _whole("the port", match["port"] or usual, 1, 65535)
    return Target(match["host"].strip("[]"), port, (match["path"] or "").rstrip("/"), is_tls)


def _whole(name: str, value: str, low: int, high: int) -> int:
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise ValueError(f"{name} is {value!r}, not a whole number from {low} to {high}")
    return int(value)


def _optional_s(name: str, value: str | None) -> float | None:
    return None if value is None else _duration_s(name, value)


def _duration_s(name: str, value: str) -> float:
    match = _DURATION.fullmatch(value)
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"{name} is {value!r}, not a time above 0 such as 500ms, 3s or 2m")
    return seconds
