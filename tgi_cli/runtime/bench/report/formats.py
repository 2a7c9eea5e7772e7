"""A result as text, in the form that was asked for: `tgi bench report`."""

from __future__ import annotations

from typing import Literal

from tgi_cli.runtime.bench.report.csv_file import render_csv
from tgi_cli.runtime.bench.report.html import render_html
from tgi_cli.runtime.bench.report.markdown import render_markdown
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.result import Result

Format = Literal["table", "csv", "html", "md"]
FORMATS: tuple[Format, ...] = ("table", "csv", "html", "md")


def render_as(
    result: Result, form: Format, *, is_ascii: bool = False, has_colour: bool = False
) -> str:
    """Return the whole text, its last line ended."""
    match form:
        case "table":
            return render(result, is_ascii=is_ascii, has_colour=has_colour)
        case "csv":
            return render_csv(result)
        case "html":
            return render_html(result)
        case "md":
            return render_markdown(result)
