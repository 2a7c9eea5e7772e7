"""Options about limits, the client itself, and what is shown and kept."""

from __future__ import annotations

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.bench import forms
from tgi_cli.runtime.config.bench.setting import (
    CLIENT,
    LIMITS,
    OUTPUT,
    BenchSetting,
    choice,
    path,
    switch,
    time,
)

LIMIT_SETTINGS: tuple[BenchSetting, ...] = (
    BenchSetting(
        name="goodput",
        group=LIMITS,
        parse=forms.goodput,
        metavar="NAME=TIME,…",
        write=forms.written_goodput,
        help="What a good request keeps to: ttft, tpot, itl_max, e2e.",
    ),
    BenchSetting(
        name="slo",
        group=LIMITS,
        metavar="EXPR",
        help="A limit such as ttft.p99<500ms or out_tok_s>=1000@c=8; repeatable; exit code 3.",
        is_repeated=True,
    ),
    switch("strict", LIMITS, "A limit that too few requests can prove fails."),
)

CLIENT_SETTINGS: tuple[BenchSetting, ...] = (
    time("connect_timeout", CLIENT, "Longest wait for a connection.", forms.positive_duration),
    time("first_token_timeout", CLIENT, "Longest wait for a token.", forms.positive_duration),
    time("idle_timeout", CLIENT, "Longest gap in an answer.", forms.positive_duration),
    time("timeout", CLIENT, "Longest request.", forms.positive_duration, note="none"),
    BenchSetting(
        name="retry_429",
        group=CLIENT,
        parse=parsers.count,
        metavar="N",
        help="Tries again after status 429; latency counts from the first.",
    ),
    BenchSetting(
        name="workers",
        group=CLIENT,
        parse=forms.workers,
        metavar="auto|N",
        help="Client processes.",
        default_note="auto",
    ),
    switch("keepalive", CLIENT, "Keep connections; else each request makes its own."),
    BenchSetting(
        name="http1_pool",
        group=CLIENT,
        parse=forms.positive_count,
        metavar="N",
        help="Most connections of a worker.",
        default_note="none",
    ),
    BenchSetting(
        name="metrics_url",
        group=CLIENT,
        parse=forms.metrics_url,
        metavar="auto|off|URL",
        help="The server's own metrics.",
    ),
)

OUTPUT_SETTINGS: tuple[BenchSetting, ...] = (
    BenchSetting(
        name="out",
        group=OUTPUT,
        metavar="DIR",
        help="Folder for the results.",
        default_note="bench-TIME-MODEL",
        is_kept=False,
    ),
    switch("save", OUTPUT, "Write the results' folder."),
    switch("save_text", OUTPUT, "Keep the answers' text in requests.jsonl."),
    BenchSetting(
        name="meta",
        group=OUTPUT,
        parse=forms.meta,
        metavar="KEY=VALUE",
        write=forms.written_meta,
        help="A note in result.json; repeatable.",
        is_repeated=True,
    ),
    switch("quiet", OUTPUT, "Nothing but the report."),
    choice("progress", OUTPUT, ("auto", "json"), "json: one object a second on stderr."),
    switch("ascii", OUTPUT, "Draw with ASCII alone."),
    switch("color", OUTPUT, "Colour on a terminal."),
    path("config", OUTPUT, "TOML file with options of the same names; flags win."),
    switch("dry_run", OUTPUT, "Print the plan and send nothing.", is_kept=False),
)
