"""What people are told of a start: each value with its reason, and warnings."""

from __future__ import annotations

from collections.abc import Iterable

from tgi_cli.runtime.config.resolved import Decision


class StartNotes:
    """Collects decisions and warnings, in the order in which they are made."""

    def __init__(self, warnings: Iterable[str] = ()) -> None:
        self.decisions: list[Decision] = []
        self.warnings = list(warnings)

    def decide(self, name: str, value: object, reason: str) -> None:
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        self.decisions.append(Decision(name=name, value=shown, reason=reason))

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def show_bytes(num_bytes: float) -> str:
    if num_bytes >= 1 << 30:
        return f"{num_bytes / (1 << 30):.2f} GiB"
    return f"{num_bytes / (1 << 20):.1f} MiB"
