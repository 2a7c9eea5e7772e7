"""`result.json`, struct by struct. Seconds, rates per second; unknown is null, infinity is "inf".

The schema's number is raised when a reader of an older file would misread a newer one.
Spec: bench.md section 15.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA = "tgi-bench/1"
Number = float | Literal["inf"] | None
Interval = tuple[Number, Number]
Verdict = Literal["valid", "warn", "invalid"]


class Load(msgspec.Struct, kw_only=True):
    kind: str  # concurrency, rate, ramp, burst, offline, trace or conversations
    value: float | str | None = None
    arrival: str | None = None
    burstiness: float | None = None
    max_concurrency: int | None = None


class Steady(msgspec.Struct, kw_only=True):
    """The part of the window in which the load was steady, from the run's start."""

    w0: float
    w1: float
    found: bool


class Phases(msgspec.Struct, kw_only=True):
    warmup_s: float
    w0: float
    w1: float
    drain_s: float
    steady: Steady


class Counts(msgspec.Struct, kw_only=True):
    planned: int = 0
    sent: int = 0
    ok: int = 0
    failed: int = 0
    unfinished: int = 0
    dropped: int = 0
    cancelled: int = 0
    by_class: dict[str, int] = {}
    messages: dict[str, str] = {}  # the first of each class


class Tokens(msgspec.Struct, kw_only=True):
    input: int = 0
    output: int = 0
    source: dict[str, int] = {}  # requests by the way in which they were counted
    mismatch_mean: float | None = None
    short_output_fraction: float | None = None
    cached_fraction: float | None = None


class Rates(msgspec.Struct, kw_only=True):
    req_s: Number = None
    out_tok_s: Number = None
    in_tok_s: Number = None
    ci95: dict[str, Interval] = {}


class Throughput(msgspec.Struct, kw_only=True):
    all: Rates
    steady: Rates
    peak_out_tok_s: Number = None
    offered_req_s: Number = None
    sent_req_s: Number = None


class Summary(msgspec.Struct, kw_only=True):
    """A population: nearest-rank percentiles are values that were observed."""

    n: int = 0
    mean: Number = None
    sd: Number = None
    min: Number = None
    max: Number = None
    p50: Number = None
    p90: Number = None
    p95: Number = None
    p99: Number = None
    p999: Number = msgspec.field(name="p99.9", default=None)
    ci95: dict[str, Interval] = {}  # absent for a percentile: too few values to have one


class Latency(msgspec.Struct, kw_only=True):
    ok: Summary
    all: Summary  # failed, unfinished and dropped requests are infinite
    steady: Summary
    service: Summary | None = None  # from the sending instead of the planned time


class Latencies(msgspec.Struct, kw_only=True):
    ttft: Latency
    ttfc: Latency
    e2e: Latency
    tpot: Latency
    tpot_n1: Latency
    itl: Latency
    icl: Latency
    stall: Latency
    server_queue: Summary | None = None


class Concurrency(msgspec.Struct, kw_only=True):
    mean: float = 0.0
    max: int = 0
    little_residual: float | None = None


class Goodput(msgspec.Struct, kw_only=True):
    limits: dict[str, float] = {}  # seconds
    fraction: float | None = None
    req_s: float | None = None
    tok_s: float | None = None
    failed_limit: dict[str, int] = {}


class Generator(msgspec.Struct, kw_only=True):
    """The client's own part in the numbers."""

    lag: Summary
    client_queue: Summary
    connect: Summary
    loop_lag_p99: float | None = None
    cpu_max: float | None = None
    gc_pause_max: float | None = None
    events_per_delivery: float | None = None
    tokens_per_delivery: float | None = None


class ServerMetrics(msgspec.Struct, kw_only=True):
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    series: list[dict[str, float]] = []


class Timeline(msgspec.Struct, kw_only=True):
    """Lists have one entry per bin, from the window's start."""

    bin_s: float = 1.0
    out_tok: list[int] = []
    in_flight: list[float] = []
    ttft_p50: list[Number] = []
    errors: list[int] = []


class Part(msgspec.Struct, kw_only=True):
    """A part of a stage's measured requests: one turn of conversations, or a slice of a ramp."""

    turn: int | None = None  # from 0
    start_s: float | None = None  # from the window's start
    duration_s: float | None = None
    num_requests: int
    num_errors: int
    req_s: float | None = None  # slices only, as are the next two
    out_tok_s: float | None = None
    concurrency: float | None = None  # time-weighted mean
    ttft: Summary  # failures are infinite
    tpot: Summary
    e2e: Summary
    cached_fraction: float | None = None


class Distribution(msgspec.Struct, kw_only=True):
    """How values lie, for drawing: counts in log-spaced bins, and the way up to the slowest.

    `counts[i]` is how many lie in [edges[i], edges[i + 1]), the last bin its upper edge included.
    """

    edges: list[float] = []
    counts: list[int] = []
    num_infinite: int = 0
    quantiles: list[tuple[float, Number]] = []


class Stage(msgspec.Struct, kw_only=True):
    key: str
    load: Load
    repeat: int = 0
    verdict: Verdict = "valid"
    verdict_reasons: list[str] = []
    is_stable: bool | None = None  # open loops
    phases: Phases
    counts: Counts
    tokens: Tokens
    throughput: Throughput
    latency: Latencies
    concurrency: Concurrency
    goodput: Goodput
    generator: Generator
    server_metrics: ServerMetrics = msgspec.field(default_factory=ServerMetrics)
    timeline: Timeline = msgspec.field(default_factory=Timeline)
    by_turn: list[Part] = []  # conversations
    by_slice: list[Part] = []  # ramps: slices of 10 s
    distributions: dict[str, Distribution] = {}  # of ttft, itl and e2e, failures included
    hdr: dict[str, str] = {}  # metric: compressed histogram, base64


class Endpoint(msgspec.Struct, kw_only=True):
    url: str
    protocol: Literal["tgi", "completions", "chat"] | None = None  # None: not found out yet
    model: str | None = None
    server: dict[str, Any] = {}
    capabilities: dict[str, bool] = {}
    template_overhead: int | None = None  # tokens


class ClientFacts(msgspec.Struct, kw_only=True):
    host: str
    cpu: str
    cores: int
    kernel: str
    python: str
    workers: int
    calibration: dict[str, float] | None = None


class Aggregate(msgspec.Struct, kw_only=True):
    """The repeats of one stage together."""

    key: str
    runs: int
    metrics: dict[str, dict[str, Any]]  # mean, sd, cv, ci95 by metric


class Sweep(msgspec.Struct, kw_only=True):
    sat_req_s: float | None = None
    slo_req_s: float | None = None
    knee: float | None = None


class SloOutcome(msgspec.Struct, kw_only=True):
    expr: str
    stage: str
    value: Number
    passed: bool
    proven: bool = True
    why: str | None = None  # it failed or is unproven, where the value doesn't tell


class Result(msgspec.Struct, kw_only=True):
    schema: str = SCHEMA
    id: str
    started: str  # UTC, RFC 3339
    tgi_version: str
    argv: list[str]  # secrets left out
    config: dict[str, Any]
    meta: dict[str, str] = {}
    seed: int
    endpoint: Endpoint
    client: ClientFacts
    stages: list[Stage]
    aggregate: list[Aggregate] = []
    sweep: Sweep = msgspec.field(default_factory=Sweep)
    slo: list[SloOutcome] = []
    exit_code: int = 0
    exit_reason: str | None = None
