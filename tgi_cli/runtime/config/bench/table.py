"""THE table of `tgi bench`'s options: the command line, `--config` and the reference page are made
from it. Defaults are in `options.py`. Spec: bench.md section 14.
"""

from __future__ import annotations

from typing import get_args

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.bench import forms
from tgi_cli.runtime.config.bench.options import (
    BenchArrival,
    BenchProtocol,
    CiMetric,
    PrefixCache,
)
from tgi_cli.runtime.config.bench.setting import (
    CLIENT,
    ENDPOINT,
    INPUTS,
    LENGTH,
    LIMITS,
    LOAD,
    LOAD_DETAILS,
    OUTPUT,
    BenchSetting,
    choice,
    path,
    switch,
    time,
    written_list,
    written_share,
)

_ENDPOINT_SETTINGS = (
    BenchSetting(
        name="url",
        group=ENDPOINT,
        parse=forms.base_url,
        metavar="URL",
        help="Base URL; the same as the argument.",
    ),
    BenchSetting(
        name="path",
        group=ENDPOINT,
        parse=forms.path,
        metavar="PATH",
        help="Route to call, in place of the protocol's.",
    ),
    choice(
        "protocol",
        ENDPOINT,
        get_args(BenchProtocol),
        "TGI's own or one of OpenAI's; auto asks /info, then /v1/models.",
    ),
    BenchSetting(
        name="model",
        group=ENDPOINT,
        metavar="NAME",
        help="Model name to send.",
        default_note="the first that is served",
    ),
    BenchSetting(
        name="tokenizer",
        group=ENDPOINT,
        metavar="MODEL",
        help="Model id, folder or tokenizer.json that counts tokens.",
        default_note="the model's, else the server's /tokenize",
    ),
    BenchSetting(
        name="api_key",
        group=ENDPOINT,
        metavar="KEY",
        help="Key to send; never written anywhere.",
        default_note="TGI_API_KEY, else OPENAI_API_KEY",
        is_secret=True,
        is_kept=False,
    ),
    BenchSetting(
        name="api_key_env",
        group=ENDPOINT,
        metavar="NAME",
        help="Environment variable that holds the key.",
        is_kept=False,
    ),
    BenchSetting(
        name="header",
        group=ENDPOINT,
        parse=forms.header,
        metavar="NAME:VALUE",
        short_flag="-H",
        help="A header to send; repeatable. Values are left out of results.",
        is_repeated=True,
        is_secret=True,
        is_kept=False,
    ),
    path("cacert", ENDPOINT, "Certificates to trust, in PEM.", note="the system's"),
    switch("insecure", ENDPOINT, "Take any certificate."),
)

_LOAD_SETTINGS = (
    BenchSetting(
        name="concurrency",
        group=LOAD,
        parse=forms.counts,
        metavar="N,…",
        write=written_list,
        help="Closed loop: so many users, each sends again after its answer.",
        default_note="1,4,16 for 20s each, if no load is asked for",
    ),
    BenchSetting(
        name="rate",
        group=LOAD,
        parse=forms.rates,
        metavar="R,…",
        write=written_list,
        help="Open loop: requests per second, whatever the server does.",
    ),
    BenchSetting(
        name="ramp",
        group=LOAD,
        parse=forms.ramps,
        metavar="A..B/TIME,…",
        write=written_list,
        help="A load that grows or falls in a straight line.",
    ),
    BenchSetting(
        name="burst",
        group=LOAD,
        parse=forms.counts,
        metavar="N,…",
        write=written_list,
        help="So many requests at one instant; --repeat times, each after the one before.",
    ),
    switch("offline", LOAD, "All requests at once, for throughput alone."),
    switch("sweep", LOAD, "Find the saturation, then rates from 25% to 100% of it."),
    path("trace", LOAD, "Replay the arrivals and lengths of a JSONL or CSV file."),
    path(
        "conversations",
        LOAD,
        "Conversations of a JSON or JSONL file, turn by turn; with --concurrency or --rate.",
    ),
)

_DETAIL_SETTINGS = (
    choice("arrival", LOAD_DETAILS, get_args(BenchArrival), "Gaps between arrivals in open loop."),
    BenchSetting(
        name="burstiness",
        group=LOAD_DETAILS,
        parse=forms.positive_number,
        metavar="SHAPE",
        help="Shape of the gamma gaps: 1 is Poisson, less comes in bursts.",
        default_note="1",
    ),
    choice("ramp_kind", LOAD_DETAILS, get_args(forms.RampKind), "What --ramp changes."),
    BenchSetting(
        name="trace_speed",
        group=LOAD_DETAILS,
        parse=forms.positive_number,
        metavar="FACTOR",
        help="How much faster than recorded.",
    ),
    switch("replay_answers", LOAD_DETAILS, "History holds recorded answers, not the server's."),
    time("think_time", LOAD_DETAILS, "A user's pause before the next request.", forms.duration),
    time(
        "stagger",
        LOAD_DETAILS,
        "Time over which the users' starts are spread.",
        forms.duration,
        note="one mean e2e",
    ),
    BenchSetting(
        name="max_concurrency",
        group=LOAD_DETAILS,
        parse=forms.positive_count,
        metavar="N",
        help="Most requests in flight in open loop; latency counts from the plan all the same.",
    ),
    BenchSetting(
        name="cancel",
        group=LOAD_DETAILS,
        parse=forms.cancel,
        metavar="SHARE@TIME",
        help="Hang up on a share of the requests, such as 5%@2s.",
    ),
    BenchSetting(
        name="seed",
        group=LOAD_DETAILS,
        parse=forms.seed,
        metavar="N",
        help="Fixes lengths, text and arrivals.",
        default_note="drawn, and stored",
    ),
)

_LENGTH_SETTINGS = (
    BenchSetting(
        name="requests",
        group=LENGTH,
        parse=forms.positive_count,
        metavar="N",
        help="Requests of a stage.",
    ),
    time(
        "duration",
        LENGTH,
        "Time of a stage.",
        forms.positive_duration,
        note="60s; none beside --requests",
    ),
    BenchSetting(
        name="warmup",
        group=LENGTH,
        parse=forms.warmup,
        metavar="TIME|N",
        help="Time, or number of requests, before a stage is measured.",
    ),
    time("drain", LENGTH, "Time for answers that are late at a stage's end.", forms.duration),
    time("cooldown", LENGTH, "Pause between stages.", forms.duration),
    BenchSetting(
        name="repeat",
        group=LENGTH,
        parse=forms.positive_count,
        metavar="N",
        help="Times that all stages are run.",
    ),
    BenchSetting(
        name="until_ci",
        group=LENGTH,
        parse=forms.positive_percentage,
        metavar="SHARE",
        write=written_share,
        help="Stop a stage when the 95% interval is this narrow, such as 5%.",
    ),
    choice("ci_metric", LENGTH, get_args(CiMetric), "What --until-ci looks at."),
    BenchSetting(
        name="max_errors",
        group=LENGTH,
        parse=forms.max_errors,
        metavar="N|SHARE",
        help="Stop a stage with so many failures; exit code 4.",
    ),
    switch("tail_load", LENGTH, "Keep the load up until the last measured request is done."),
)

_INPUT_SETTINGS = (
    BenchSetting(
        name="input_tokens",
        group=INPUTS,
        parse=forms.lengths,
        metavar="LENGTHS",
        help="512, uniform:100..900, normal:512,sd=128, lognormal:median=400,sigma=0.8, "
        "choice:128@3,2048@1 or file:PATH.",
        default_note="512",
    ),
    BenchSetting(
        name="output_tokens",
        group=INPUTS,
        parse=forms.lengths,
        metavar="LENGTHS",
        help="The same for outputs.",
        default_note="128, or the file's",
    ),
    path("dataset", INPUTS, "Prompts: ShareGPT JSON, JSONL or a plain text's lines."),
    path("text", INPUTS, "A text to cut inputs from."),
    BenchSetting(
        name="shared_prefix",
        group=INPUTS,
        parse=forms.shared_prefix,
        metavar="TOKENS[xGROUPS]",
        help="Begin inputs with one of GROUPS fixed prefixes; ,zipf=1.1 makes some frequent.",
    ),
    choice(
        "prefix_cache",
        INPUTS,
        get_args(PrefixCache),
        "avoid: nothing that was sent before; allow: the same inputs in every run; "
        "prime: send shared prefixes before the window.",
    ),
    switch("send_token_ids", INPUTS, "Send token ids in place of text; completions only."),
    BenchSetting(
        name="temperature", group=INPUTS, parse=parsers.ratio, metavar="T", help="0 is greedy."
    ),
    BenchSetting(
        name="top_p", group=INPUTS, parse=parsers.share, metavar="P", help="As the server means it."
    ),
    BenchSetting(
        name="body",
        group=INPUTS,
        parse=forms.body,
        metavar="JSON",
        help="Fields to put into every request.",
    ),
    switch("ignore_eos", INPUTS, "Force the output length, where the server takes that."),
    switch("require_output_length", INPUTS, "Outputs shorter than planned: exit code 5."),
    switch("stream", INPUTS, "Stream the answers; else only e2e is measured."),
)

_LIMIT_SETTINGS = (
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

_CLIENT_SETTINGS = (
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

_OUTPUT_SETTINGS = (
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

BENCH_SETTINGS: tuple[BenchSetting, ...] = (
    *_ENDPOINT_SETTINGS,
    *_LOAD_SETTINGS,
    *_DETAIL_SETTINGS,
    *_LENGTH_SETTINGS,
    *_INPUT_SETTINGS,
    *_LIMIT_SETTINGS,
    *_CLIENT_SETTINGS,
    *_OUTPUT_SETTINGS,
)
