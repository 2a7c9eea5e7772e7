"""docs/reference/quantize.md: the options of `tgi quantize`, made from their table."""

from __future__ import annotations

from tgi_cli.runtime.config.quantize import QUANTIZE_SETTINGS, QuantizeSetting

_NOTE = "<!-- Made by `make docs` from tgi_cli/runtime/config/quantize; edit that. -->"


def quantize_page() -> str:
    """Return the page's text."""
    lines = [
        "# `tgi quantize`: options",
        "",
        _NOTE,
        "",
        "`tgi quantize [OPTIONS] MODEL OUTPUT` quantises a model: a folder of safetensors, a GGUF",
        "file, a hub id, or `demo`. `tgi quantize --evaluate MODEL --against BASE` only measures.",
        "How to choose: [quantising](../guides/quantising.md).",
        "",
        "| Exit code | When |",
        "| --- | --- |",
        "| 0 | the model is written, or measured, and within its bounds |",
        "| 1 | wrong options, a model that can't be quantised, too little memory or disk |",
        "| 2 | the command line can't be parsed |",
        "| 3 | the result is further from the original than was allowed, and isn't kept |",
        "| 6 | a GGUF file that a folder can't describe |",
        "| 130 | interrupted; `--resume` goes on |",
    ]
    for group in dict.fromkeys(setting.group for setting in QUANTIZE_SETTINGS):
        lines += ["", f"## {group}", ""]
        lines += ["| Flag | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
        lines += [_row(setting) for setting in QUANTIZE_SETTINGS if setting.group == group]
    return "\n".join(lines) + "\n"


def _row(setting: QuantizeSetting) -> str:
    flags, value = f"`{setting.flag}`", ""
    if not setting.is_switch:
        value = f"`{_cell(setting.metavar)}`"
    elif setting.default or setting.off_flag is not None:
        flags = ", ".join(f"`{flag}`" for flag in setting.switch_flags.split("/"))
    return f"| {flags} | {value} | {_default(setting)} | {_cell(setting.help)} |"


def _default(setting: QuantizeSetting) -> str:
    if setting.default_note is not None:
        return _cell(setting.default_note)
    if setting.is_switch:
        return "on" if setting.default else "off"
    return "none" if setting.default_text is None else f"`{_cell(setting.default_text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
