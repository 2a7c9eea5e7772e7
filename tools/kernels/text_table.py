"""Tables for a terminal or a page."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, is_markdown: bool
) -> None:
    """Print `rows` under their columns' names, in columns or as markdown."""
    if is_markdown:
        for row in (columns, ("---",) * len(columns), *rows):
            print(f"| {' | '.join(row)} |")
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
