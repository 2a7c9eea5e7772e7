"""`tgi print-schema`: the HTTP interface as an OpenAPI document."""

from __future__ import annotations

from tgi_cli import runtime
from tgi_cli.commands._console import print_document


def print_schema() -> None:
    """Print the OpenAPI document of the HTTP interface."""
    print_document(runtime.schema())
