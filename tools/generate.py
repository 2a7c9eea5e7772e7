"""`python -m tools.generate` writes what is made from the code: docs/reference, completions
and the dashboard.

`tests/architecture/test_generated.py` fails when a file is not what this would write.
"""

from __future__ import annotations

from pathlib import Path

from typer._completion_shared import get_completion_script

from tgi_cli.app import app
from tgi_cli.runtime.config.settings import SETTINGS, Setting
from tgi_cli.runtime.config.settings.environment import (
    HUB_VARIABLES,
    SAGEMAKER_VARIABLES,
    UNUSED_VARIABLES,
)
from tgi_cli.runtime.router.metric_families import FAMILIES
from tools.bench_page import bench_page
from tools.dashboard import dashboard
from tools.download_page import download_page
from tools.http_page import http_page
from tools.quantize_page import quantize_page

ROOT = Path(__file__).resolve().parents[1]
SHELLS = ("bash", "zsh", "fish")
NOTE = "<!-- Made by `make docs` from tgi_cli/runtime/config/settings; edit that. -->"


def main() -> None:
    for name, text in generated_files().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def generated_files() -> dict[str, str]:
    """Return each file's text by its path from the root."""
    files = {
        "docs/reference/bench.md": bench_page(),
        "docs/reference/cli.md": cli_page(),
        "docs/reference/download.md": download_page(),
        "docs/reference/environment.md": variables_page(),
        "docs/reference/http.md": http_page(),
        "docs/reference/metrics.md": metrics_page(),
        "docs/reference/quantize.md": quantize_page(),
        "deploy/grafana/dashboard.json": dashboard(),
    }
    return files | {f"completions/tgi.{shell}": completion(shell) for shell in SHELLS}


def cli_page() -> str:
    lines = [
        "# Command line",
        "",
        NOTE,
        "",
        "`tgi serve [OPTIONS] [MODEL]` serves a model over HTTP; `MODEL` is the same as",
        "`--model-id`. `text-generation-launcher`, `-router` and `-server` are names of it for",
        "TGI's scripts. [`tgi download`](download.md) has a page of its own.",
        "`--help` and `--version` (`-h`, `-V`) work as anywhere;",
        "`tgi --install-completion` sets up the shell, and ready-made scripts are in",
        "`completions/`. How options work together: [configuration](../guides/configuration.md).",
        "",
        "A flag wins over its variable ([environment](environment.md)), which wins over the",
        "default. Switches may stand alone or have a value: `--json-output`,",
        "`--json-output=false`. Values take hyphens or underscores.",
        "",
        "| Exit code | When |",
        "| --- | --- |",
        "| 0 | stopped by SIGTERM or SIGINT, also while the model loads |",
        "| 1 | wrong options, no such model, too little memory, address in use, engine died |",
        "| 2 | the command line can't be parsed |",
    ]
    for group in dict.fromkeys(setting.group for setting in SETTINGS if setting.has_flag):
        lines += ["", f"## {group}", ""]
        lines += ["| Flag | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
        lines += [_flag_row(setting) for setting in SETTINGS if setting.group == group]
    return "\n".join(lines) + "\n"


def _flag_row(setting: Setting) -> str:
    flags = f"`{setting.flag}`" + (f", `{setting.short_flag}`" if setting.short_flag else "")
    return f"| {flags} | {_value(setting)} | {_default(setting)} | {_cell(setting.help)} |"


def variables_page() -> str:
    lines = [
        "# Environment",
        "",
        NOTE,
        "",
        "Each variable is also read with the prefix `TGI_`, which wins; the log has one warning",
        "when both are set and differ. An empty variable is unset. Switches take true, false, 1,",
        "0, yes, no, on and off, in any case; lists take commas. A value that can't be read ends",
        "the start with exit code 1.",
        "",
        "| Variable | Flag | Value | Default |",
        "| --- | --- | --- | --- |",
    ]
    for setting in SETTINGS:
        if setting.has_variable:
            flag = f"`{setting.flag}`" if setting.has_flag else "none"
            names = ", else ".join(
                f"`{name}`" for name in (setting.variable, *setting.fallback_variables)
            )
            lines.append(f"| {names} | {flag} | {_value(setting)} | {_default(setting)} |")
    lines += ["", "## Without a flag", "", "| Variable | Meaning |", "| --- | --- |"]
    for setting in SETTINGS:
        if not setting.has_flag:
            lines.append(f"| `{setting.variable}` | {_cell(setting.help)} |")
    lines += [f"| `{name}` | {_cell(meaning)} |" for name, meaning in HUB_VARIABLES]
    lines += [
        "",
        "## SageMaker",
        "",
        "Where no model is given, these stand in for the variables beside them, and the port is",
        "8080 unless another is asked for.",
        "",
        "| Variable | Becomes |",
        "| --- | --- |",
    ]
    lines += [f"| `{theirs}` | `{ours}` |" for theirs, ours in SAGEMAKER_VARIABLES]
    lines += ["", "## Never read", "", "| Variable of TGI's | Meaning there |", "| --- | --- |"]
    lines += [f"| `{name}` | {_cell(meaning)} |" for name, meaning in UNUSED_VARIABLES]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        NOTE.replace("config/settings", "router/metric_families.py"),
        "",
        "`GET /metrics`, on the main port and on `--prometheus-port`, in Prometheus' text format",
        "0.0.4. Every series is there from the first scrape. Durations are seconds. How to use",
        "them: [monitoring](../guides/monitoring.md).",
        "",
        "| Name | Type | Label | Buckets | Meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for family in FAMILIES:
        values = ", ".join(f"`{value}`" for value in family.label_values)
        label = f"`{family.label}`: {values}" if family.label is not None else ""
        buckets = family.buckets.name if family.buckets is not None else ""
        name = f"`{family.name}`"
        lines.append(f"| {name} | {family.kind} | {label} | {buckets} | {_cell(family.help)} |")
    lines.append("")
    lines.append("The process's own series (`process_…`) are those of the Prometheus client.")
    return "\n".join(lines) + "\n"


def _value(setting: Setting) -> str:
    return f"`{_cell(setting.metavar)}`"


def _default(setting: Setting) -> str:
    if setting.default_text is None:
        return "none"
    shown = _cell(setting.default_text)
    return shown if setting.default_note is not None else f"`{shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def completion(shell: str) -> str:
    """Return the script that `tgi --install-completion` puts in place for a shell."""
    assert app.info.name is not None
    script = get_completion_script(
        prog_name=app.info.name, complete_var="_TGI_COMPLETE", shell=shell
    )
    return f"{script}\n"


if __name__ == "__main__":
    main()
