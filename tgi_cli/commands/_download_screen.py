"""What `tgi download` shows: bars on a terminal, and at the end the path, which scripts read.

stdout has the outcome, its last line the path of the model; everything else goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tgi_cli.commands._console import print_error
from tgi_cli.errors import StartError

if TYPE_CHECKING:
    from tgi_cli.commands._download_bars import Bars


class DownloadScreen:
    """`has_log`: lines of the log are wanted in place of bars, as they are without a terminal."""

    def __init__(self, *, is_json: bool, is_quiet: bool, has_log: bool) -> None:
        self._is_json = is_json
        self.is_quiet = is_quiet
        self.bars = None if is_quiet or has_log else _bars()

    def result(self, lines: Sequence[str], path: str, facts: Mapping[str, object]) -> None:
        if self._is_json:
            print(json.dumps(facts), flush=True)
            return
        for line in () if self.is_quiet else lines:
            print(line)
        print(path, flush=True)

    def failed(self, error: StartError) -> None:
        print_error(error)

    def interrupted(self) -> None:
        print("Interrupted. The same command goes on from here.", file=sys.stderr, flush=True)


def _bars() -> Bars | None:
    if not sys.stderr.isatty():
        return None
    from tgi_cli.commands._download_bars import Bars  # rich is slow to import

    return Bars()
