"""The class of what went wrong, from exceptions and status codes. Spec: bench.md section 10."""

from __future__ import annotations

import errno
import ssl
from email.utils import parsedate_to_datetime
from time import time

import aiohttp

from tgi_cli.runtime.bench.records import Failure

WHY_HUNG_UP: dict[Failure, str] = {
    "first_token_timeout": "no token had come when --first-token-timeout was over",
    "idle_timeout": "nothing more had come when --idle-timeout was over",
    "total_timeout": "the reply had not ended when --timeout was over",
    "cancelled": "hung up on purpose",
    "dropped": "still behind --max-concurrency when the drain was over",
    "unfinished": "still open when the drain was over",
}

_MAX_RETRY_AFTER_S = 60.0


def failure_of(error: BaseException) -> tuple[Failure, str]:
    """Return the class of a failed exchange and what there is to say of it."""
    text = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "dns", text
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls", text
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return "connect_timeout", text
        case aiohttp.ClientConnectorError():
            is_slow = error.os_error.errno == errno.ETIMEDOUT
            return ("connect_timeout" if is_slow else "refused"), text
        case aiohttp.ClientPayloadError():
            # aiohttp keeps the cause in the text alone.
            return ("reset" if "ConnectionResetError" in text else "truncated"), text
        case aiohttp.ClientConnectionError() | OSError():
            return "reset", text
        case _:
            return "protocol", text


def class_of_status(status: int) -> Failure:
    """Return the class of a reply that isn't 200."""
    if status == 429:
        return "http_429"
    if status >= 500:
        return "http_5xx"
    return "http_4xx" if status >= 400 else "protocol"


def retry_after_s(header: str | None) -> float:
    """Return how long to wait: seconds, or until a date; one second if nothing is said."""
    if header is None:
        return 1.0
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - time()
        except ValueError:
            return 1.0
    return min(max(wait_s, 0.0), _MAX_RETRY_AFTER_S) if wait_s == wait_s else 1.0
