"""Options about the load: which, how it is put on, and for how long."""

from __future__ import annotations

from typing import get_args

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.bench import forms
from tgi_cli.runtime.config.bench.options import BenchArrival, CiMetric
from tgi_cli.runtime.config.bench.setting import (
    LENGTH,
    LOAD,
    LOAD_DETAILS,
    BenchSetting,
    choice,
    path,
    switch,
    time,
    written_list,
    written_share,
)

LOAD_SETTINGS: tuple[BenchSetting, ...] = (
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

DETAIL_SETTINGS: tuple[BenchSetting, ...] = (
    choice("arrival", LOAD_DETAILS, get_args(BenchArrival), "Gaps between arrivals in open loop."),
    BenchSetting(
        name="burstiness",
        group=LOAD_DETAILS,
        parse=parsers.positive_number,
        metavar="SHAPE",
        help="Shape of the gamma gaps: 1 is Poisson, less comes in bursts.",
        default_note="1",
    ),
    choice("ramp_kind", LOAD_DETAILS, get_args(forms.RampKind), "What --ramp changes."),
    BenchSetting(
        name="trace_speed",
        group=LOAD_DETAILS,
        parse=parsers.positive_number,
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

LENGTH_SETTINGS: tuple[BenchSetting, ...] = (
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
        help="Time before a stage is measured; a bare number is requests.",
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
