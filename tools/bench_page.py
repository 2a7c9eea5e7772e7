"""docs/reference/bench.md: the options of `tgi bench`, made from their table."""

from __future__ import annotations

from tgi_cli.runtime.config.bench import BENCH_SETTINGS, BenchSetting

_NOTE = "<!-- Made by `make docs` from tgi_cli/runtime/config/bench; edit that. -->"
_VALUES = (
    ("TIME", "`500ms`, `20s`, `2m`, `1h`; a bare number is seconds"),
    ("SHARE", "a percentage, such as `5%`"),
    ("LENGTHS", "`512`; `uniform:100..900`; `normal:512,sd=128,min=1,max=2048`; "
     "`lognormal:median=400,sigma=0.8`; `choice:128@3,2048@1`, by weight; `file:PATH`, one a line"),
    ("N,…", "a comma list: one stage of each value"),
)  # fmt: skip


def bench_page() -> str:
    """Return the page's text."""
    lines = [
        "# `tgi bench`: options",
        "",
        _NOTE,
        "",
        "`tgi bench [OPTIONS] [URL]` puts load on an endpoint that generates text. Options may",
        "stand in a TOML file, `--config FILE`, by the same names: `rate = [2, 4]`,",
        '`duration = "20s"`, `no-save = true`. A flag wins over the file, and a name that isn\'t',
        "known is refused. Each run writes its own options to `run.toml` in its folder; keys and",
        "the values of headers are never written anywhere.",
        "",
        "| Value | Written as |",
        "| --- | --- |",
        *(f"| `{name}` | {_cell(meaning)} |" for name, meaning in _VALUES),
        "",
        "| Exit code | When |",
        "| --- | --- |",
        "| 0 | all is well |",
        "| 1 | an error of the program's own |",
        "| 2 | the command line can't be understood |",
        "| 3 | a limit of `--slo` was not kept |",
        "| 4 | more failures than `--max-errors` |",
        "| 5 | the numbers are not to be trusted: an invalid stage, wrong lengths |",
        "| 6 | the endpoint can't be reached, or every request fails |",
        "| 130 | interrupted; what was measured is kept |",
        "",
        "Where several apply, 6 comes before 5, 5 before 4 and 4 before 3.",
    ]
    for group in dict.fromkeys(setting.group for setting in BENCH_SETTINGS):
        lines += ["", f"## {group}", ""]
        lines += ["| Flag | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
        lines += [_row(setting) for setting in BENCH_SETTINGS if setting.group == group]
    return "\n".join(lines) + "\n"


def _row(setting: BenchSetting) -> str:
    names = [setting.flag] if setting.short_flag is None else [setting.flag, setting.short_flag]
    if setting.is_switch and setting.default:
        names.append(f"--no-{setting.flag[2:]}")
    flags = ", ".join(f"`{name}`" for name in names)
    value = "" if setting.is_switch else f"`{_cell(setting.metavar)}`"
    return f"| {flags} | {value} | {_default(setting)} | {_cell(setting.help)} |"


def _default(setting: BenchSetting) -> str:
    if setting.is_switch:
        return "on" if setting.default else "off"
    if setting.default_text is None:
        return "none"
    shown = _cell(setting.default_text)
    return shown if setting.default_note is not None else f"`{shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
