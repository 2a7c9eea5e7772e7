"""Requests to the hub through its own client: who retries, what is retried, what a refusal means.

The client's retries are turned off, so that there is one policy: what may pass by itself (no
network, 408, 429, 5xx, a body that breaks off) is tried again after a wait that doubles, with
jitter, or that the hub names in `Retry-After`. Bytes that arrived start the count anew.
"""

from __future__ import annotations

import email.utils
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx2  # the HTTP library of huggingface_hub 2
from huggingface_hub import HfApi, constants, get_session, get_token
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
from huggingface_hub.utils import logging as hub_logging

from tgi_cli import __version__
from tgi_cli.errors import HubUnreachableError, StartError
from tgi_cli.runtime.hub.download.refusals import REFUSED, refusal

MAX_RETRIES = 5  # in a row, without a byte in between
MAX_RETRY_AFTER_S = 600.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_BUSY = frozenset({408, 429})

T = TypeVar("T")
Pause = Callable[[float], None]


class HubBusyError(Exception):
    """The hub, or a host that it sent us to, can't answer now."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(f"status {status}")
        self.retry_after_s = retry_after_s


class BrokenOffError(Exception):
    """A body ended before its file did."""


class Stop(threading.Event):
    """Set when the run is over."""


class Stopped(Exception):
    """The run is over; whoever still works on it leaves off."""


# A redirect, or HF_ENDPOINT, that no waiting mends.
_ASTRAY = (httpx2.TooManyRedirects, httpx2.UnsupportedProtocol)
_PASSING = (httpx2.RequestError, HubBusyError, BrokenOffError)


@dataclass(frozen=True, slots=True)
class Hub:
    """The ways to ask: with which token, how to wait and whom to tell of it."""

    token: str | None  # None: the one that the hub's client finds, if there is one
    pause: Pause
    say: Callable[[str], None]

    def headers(self) -> dict[str, str]:
        """Return the headers of a request for a file's own bytes."""
        headers: dict[str, str] = build_hf_headers(
            token=self.token, library_name="tgi", library_version=__version__
        )
        return headers | {"Accept-Encoding": "identity"}

    def api(self) -> HfApi:
        return HfApi(token=self.token, library_name="tgi", library_version=__version__)

    def ask(
        self,
        request: Callable[[], T],
        repository: str,
        *,
        revision: str | None = None,
        file: str | None = None,
        num_arrived: Callable[[], int] = lambda: 0,
    ) -> T:
        """Return what `request` returns, asking again while the trouble may pass.

        `num_arrived` counts bytes; a request that brought some isn't stuck.

        Raises:
            StartError: the hub refused, or couldn't be reached.
        """
        what = repository if file is None else f"{repository}: {file}"
        num_failures, reached = 0, num_arrived()
        while True:
            try:
                return request()
            except REFUSED as exc:
                has_token = bool(self.token or get_token())
                raise refusal(exc, repository, revision, file, has_token=has_token) from exc
            except _ASTRAY as exc:
                raise HubUnreachableError(
                    f"{what}: the way to it ends in a circle or at no web address "
                    f"({type(exc).__name__}).",
                    hint=f"Check that {constants.ENDPOINT} (HF_ENDPOINT) leads to a hub.",
                ) from exc
            except _PASSING as exc:
                arrived = num_arrived()
                num_failures = 1 if arrived > reached else num_failures + 1
                reached = max(arrived, reached)
                wait_s = _wait_s(exc, num_failures)
                if num_failures > MAX_RETRIES or wait_s > MAX_RETRY_AFTER_S:
                    raise _unreachable(what, exc) from exc
                self.say(f"{what}: {_cause(exc)}; trying again in {wait_s:.0f} s")
                self.pause(wait_s)


@contextmanager
def hub_session() -> Iterator[None]:
    """Let trouble come out of the hub's client as it happens, and keep the client silent.

    Its warnings would name addresses that are signed with the user's rights. It sends nothing but
    what is asked for: no list of packages, no request to find out who runs it. And it hands over
    what arrives as it comes: pieces of a fixed size would be copied, and lost with the connection.
    """
    hooks = get_session().event_hooks["response"]
    before = (
        hub_logging.get_verbosity(),
        constants.DOWNLOAD_CHUNK_SIZE,
        constants.HF_HUB_DISABLE_TELEMETRY,
    )
    hub_logging.set_verbosity(logging.ERROR)
    constants.DOWNLOAD_CHUNK_SIZE = None  # type: ignore[assignment]
    constants.HF_HUB_DISABLE_TELEMETRY = True
    hooks.append(_take_over)
    try:
        yield
    finally:
        hooks.remove(_take_over)
        verbosity, constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DISABLE_TELEMETRY = before
        hub_logging.set_verbosity(verbosity)


def stoppable_pause(stop: Stop) -> Pause:
    """Return a wait that ends at once, with `Stopped`, when `stop` is set."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped

    return pause


class _Body(httpx2.SyncByteStream):
    """A body whose breaking off the hub's client doesn't know how to mend, so that we do."""

    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except httpx2.TransportError as exc:
            raise BrokenOffError from exc

    def close(self) -> None:
        self._stream.close()


def _take_over(response: httpx2.Response) -> None:
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Body(response.stream)
    if response.status_code in _BUSY or response.status_code >= 500:
        raise HubBusyError(
            response.status_code, _retry_after_s(response.headers.get("Retry-After"))
        )


def _retry_after_s(value: str | None) -> float | None:
    """Read seconds or a date; None for anything else."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, moment - time.time())


def _wait_s(exc: Exception, num_failures: int) -> float:
    if isinstance(exc, HubBusyError) and exc.retry_after_s is not None:
        return exc.retry_after_s
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (num_failures - 1))
    return random.uniform(longest / 2, longest)


def _cause(exc: Exception) -> str:
    if isinstance(exc, HubBusyError):
        return f"the hub answers with {exc}"
    if _is_late(exc):
        return "nothing came for too long"
    if isinstance(exc, BrokenOffError | httpx2.RemoteProtocolError | httpx2.ReadError):
        return "the connection broke off"
    return "the hub can't be reached"


def _is_late(exc: Exception) -> bool:
    return isinstance(exc, httpx2.TimeoutException) or isinstance(
        exc.__cause__, httpx2.TimeoutException
    )


def _unreachable(what: str, exc: Exception) -> StartError:
    if isinstance(exc, HubBusyError) and (exc.retry_after_s or 0) > MAX_RETRY_AFTER_S:
        minutes = f"{(exc.retry_after_s or 0) / 60:.0f} minutes"
        return HubUnreachableError(
            f"{what}: {_cause(exc)} and asks to wait {minutes}.",
            hint="Run the same command again then: it goes on where it stopped.",
        )
    return HubUnreachableError(
        f"{what}: {_cause(exc)} ({type(exc).__name__}; tried {MAX_RETRIES + 1} times).",
        hint=f"Check the network and that {constants.ENDPOINT} can be reached, then run the same "
        "command again: it goes on where it stopped. Offline, only the cache is used.",
    )
