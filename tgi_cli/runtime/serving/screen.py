"""What a server tells the person who started it; `commands` decides how it looks."""

from __future__ import annotations

from typing import Protocol

from tgi_cli.runtime.config.resolved import ResolvedConfig


class Screen(Protocol):
    def decided(self, config: ResolvedConfig) -> None:
        """The limits are known; loading begins."""

    def listening(self, url: str, *, needs_key: bool) -> None:
        """The model answers under `url`."""
