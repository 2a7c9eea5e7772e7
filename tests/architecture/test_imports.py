"""Who may import whom: the table of docs/architecture.md, held against every file.

A file belongs to the row with the longest prefix of its name. It may import its own row, the rows
named in `ours`, and of the libraries in `GUARDED` only those in `libraries`. Nested imports count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.imports import PACKAGE, imports_of, module_name, source_files

GUARDED = frozenset({"torch", "triton", "aiohttp", "typer", "rich", "transformers"})
BANNED = frozenset({"click", "pickle", "cloudpickle"})
FACADES = frozenset({"", "runtime"})  # naming one of these doesn't name what lies below it


@dataclass(frozen=True)
class Row:
    ours: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()


def row(ours: str = "", libraries: str = "") -> Row:
    return Row(frozenset(ours.split()), frozenset(libraries.split()))


BASE = "errors runtime.types runtime.config runtime.logs"
COMPUTE = f"{BASE} kernels runtime.platforms runtime.distributed runtime.layers runtime.hub"

CONVERTING = ["__main__", "dtypes", "from_gguf", "from_lora", "from_pickles", "pickles", "plan"]

TABLE: dict[str, Row] = {
    "": row(),
    "__main__": row("app runtime"),
    "app": row("commands errors", "typer"),
    "errors": row(),
    "commands": row("runtime errors runtime.config", "typer rich"),
    "runtime": row(
        "runtime.serving runtime.router runtime.bench runtime.config runtime.health runtime.hub "
        "runtime.text runtime.quantize runtime.platforms"
    ),  # the facade
    "runtime.types": row("errors"),
    "runtime.config": row("errors runtime.types"),
    "runtime.logs": row("errors runtime.types runtime.config"),
    "runtime.text": row(BASE),
    "runtime.ipc": row("errors runtime.types"),
    "runtime.hub": row(BASE),
    # The process that converts, and alone in `hub` loads torch; it decodes as the loader does.
    **dict.fromkeys(
        (f"runtime.hub.convert.{name}" for name in CONVERTING),
        row(f"{BASE} runtime.hub runtime.models.weights", "torch"),
    ),
    "runtime.health": row("runtime.config"),
    "runtime.bench": row(f"{BASE} runtime.text", "aiohttp rich"),
    "runtime.router": row(f"{BASE} runtime.text runtime.ipc", "aiohttp"),
    "runtime.serving": row(
        f"{BASE} runtime.hub runtime.text runtime.ipc runtime.router", "aiohttp"
    ),
    "kernels": row("", "torch triton"),
    "runtime.platforms": row(f"{BASE} kernels", "torch"),
    "runtime.distributed": row(BASE, "torch"),
    "runtime.layers": row(
        f"{BASE} kernels runtime.platforms runtime.distributed", "torch"
    ),
    "runtime.models": row(COMPUTE, "torch"),
    "runtime.quantize": row(f"{COMPUTE} runtime.models runtime.text", "torch"),
    "runtime.models.weights": row(COMPUTE, "torch"),
    "runtime.engine": row(f"{COMPUTE} runtime.models runtime.text runtime.ipc", "torch"),
    # Owners of no tensors: they plan, count and talk.
    "runtime.engine.scheduler": row(f"{BASE} runtime.engine"),
    "runtime.engine.queue": row("runtime.engine"),
    "runtime.engine.sequence": row(f"{BASE} runtime.ipc runtime.engine"),
    "runtime.engine.block_manager": row("runtime.engine"),
    "runtime.engine.prefix_cache": row("runtime.engine"),
    "runtime.engine.plan": row(f"{BASE} runtime.engine"),
}  # fmt: skip


def row_name(module: str) -> str:
    """Return the row of a module, whose name is given without the package's."""
    parts = module.split(".") if module else []
    while parts and ".".join(parts) not in TABLE:
        parts.pop()
    return ".".join(parts)


def violation(importer: str, imported: str) -> str | None:
    """Return why `importer` may not import `imported` (both absolute), or None."""
    library, _, inner = imported.partition(".")
    own_row = row_name(importer.partition(".")[2])
    if library in BANNED:
        return f"{library} is banned everywhere"
    if library in GUARDED and library not in TABLE[own_row].libraries:
        return f"{own_row or PACKAGE} may not import {library}"
    if library != PACKAGE:
        return None
    target = row_name(inner)
    allowed = {own_row, *TABLE[own_row].ours, ""}  # "" is the version, which imports nothing
    if any(_covers(name, target) for name in allowed):
        return None
    return f"{own_row or PACKAGE} may not import {target}"


def _covers(name: str, target: str) -> bool:
    """Whether a row that is named by `ours` includes `target`: rows include the rows below them."""
    return target == name or (name not in FACADES and target.startswith(f"{name}."))


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_imports_follow_the_table(path: Path) -> None:
    importer = module_name(path)

    found = {
        f"{path.name}:{imported.line}: {reason}"
        for imported in imports_of(path)
        if (reason := violation(importer, imported.module))
    }

    assert not found


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("tgi_cli.runtime.router.service", "tgi_cli.runtime.engine.engine"),
        ("tgi_cli.runtime.engine.engine", "tgi_cli.runtime.router.service"),
        ("tgi_cli.runtime.router.service", "torch"),
        ("tgi_cli.runtime.engine.scheduler", "torch.nn"),
        ("tgi_cli.kernels.linear", "tgi_cli.errors"),
        ("tgi_cli.commands.serve", "tgi_cli.runtime.serving.launch"),
        ("tgi_cli.runtime.config.env", "tgi_cli.runtime.text.tokenizer"),
        ("tgi_cli.commands.serve", "click"),
    ],
)
def test_table_forbids_what_it_is_there_to_forbid(importer: str, imported: str) -> None:
    assert violation(importer, imported)


def test_table_allows_a_package_its_own_modules() -> None:
    assert violation("tgi_cli.runtime.engine.engine", "tgi_cli.runtime.engine.plan") is None
    assert violation("tgi_cli.runtime.text.stops", "tgi_cli.runtime.text.tokenizer") is None


def test_relative_imports_are_resolved() -> None:
    linear = next(path for path in source_files() if module_name(path) == "tgi_cli.kernels.linear")

    modules = {imported.module for imported in imports_of(linear)}

    assert "tgi_cli.kernels.linear.reference" in modules
