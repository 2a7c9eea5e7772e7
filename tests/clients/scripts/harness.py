"""What the scripts of this folder share. They run in a client's own environment: no pytest here.

A script defines checks, functions of a `Servers`, and calls `main`. Each check's name is printed
with how it went; the exit code is 1 if one failed.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Servers:
    """Addresses of servers in the states that a client may meet."""

    demo: str  # the demo model
    tokenizer: str  # a folder with that model's tokenizer
    full: str  # every permit is taken
    failing: str  # the engine fails each request
    keyed: str  # wants the API key `api_key`
    api_key: str


Check = Callable[[Servers], Any]


@contextmanager
def raises(kind: type[BaseException], text: str = ""):  # type: ignore[no-untyped-def]
    """Expect `kind` with `text` in it, or in the reply's body that it carries."""
    caught: BaseException | None = None
    try:
        yield
    except kind as exc:
        caught = exc
    assert caught is not None, f"{kind.__name__} wasn't raised"
    said = f"{caught!r} {getattr(caught, 'body', '')}"
    assert text in said, f"{text!r} isn't in {said}"


def main(*checks: Check) -> None:
    servers = Servers(**json.loads(sys.argv[1]))
    num_failed = 0
    for check in checks:
        try:
            result = check(servers)
            if inspect.isawaitable(result):
                asyncio.run(result)  # type: ignore[arg-type]
        except Exception:
            num_failed += 1
            print(f"FAILED {check.__name__}")
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok     {check.__name__}")
    sys.exit(1 if num_failed else 0)
