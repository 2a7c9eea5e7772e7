"""What `tgi bench` is asked to do. `table.py` holds the flags; defaults stand here alone.

`None` means that nobody said: what is done then stands beside the field. Times are seconds, shares
are from 0 to 1. Spec: bench.md section 14.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tgi_cli.runtime.config.bench.forms import (
    Cancel,
    GoodputLimit,
    MaxErrors,
    Ramp,
    RampKind,
    SharedPrefix,
    Warmup,
)
from tgi_cli.runtime.config.bench.length_forms import Lengths

BenchProtocol = Literal["auto", "tgi", "completions", "chat"]
BenchArrival = Literal["constant", "poisson", "gamma"]
PrefixCache = Literal["avoid", "allow", "prime"]
CiMetric = Literal["out_tok_s", "in_tok_s", "req_s", "ttft", "tpot", "itl", "e2e"]

_WARMUP = Warmup(other=10.0)
_MAX_ERRORS = MaxErrors(other=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """One run. Field names are the flags' names."""

    # Endpoint
    url: str = "http://127.0.0.1:3000"
    path: str | None = None  # None: the protocol's
    protocol: BenchProtocol = "auto"
    model: str | None = None  # None: the first that is served
    tokenizer: str | None = None  # None: the model's, else the server's /tokenize
    api_key: str | None = field(default=None, repr=False)
    header: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cacert: str | None = None
    insecure: bool = False

    # Load: one of these; none: DEFAULT_CONCURRENCY
    concurrency: tuple[int, ...] = ()
    rate: tuple[float, ...] = ()  # requests per second
    ramp: tuple[Ramp, ...] = ()
    burst: tuple[int, ...] = ()  # requests at once
    offline: bool = False
    sweep: bool = False
    trace: str | None = None  # a file
    conversations: str | None = None  # a file; goes with concurrency or rate

    # How it is put on
    arrival: BenchArrival = "poisson"
    burstiness: float | None = None  # gamma's shape; None: 1
    ramp_kind: RampKind = "rate"
    trace_speed: float = 1.0
    replay_answers: bool = False
    think_time: float = 0.0
    stagger: float | None = None  # None: one mean e2e
    max_concurrency: int | None = None
    cancel: Cancel | None = None
    seed: int | None = None  # None: drawn, and stored

    # How long
    requests: int | None = None
    duration: float | None = None  # None: DEFAULT_DURATION_S, without limit beside `requests`
    warmup: Warmup = _WARMUP
    drain: float = 60.0
    cooldown: float = 5.0
    repeat: int = 1  # of the list of stages; of the bursts in a stage with `burst`
    until_ci: float | None = None  # half-width of the 95 % interval
    ci_metric: CiMetric = "out_tok_s"
    max_errors: MaxErrors = _MAX_ERRORS
    tail_load: bool = True

    # What is sent
    input_tokens: Lengths | None = None  # None: DEFAULT_INPUT_TOKENS, or the file's
    output_tokens: Lengths | None = None  # None: DEFAULT_OUTPUT_TOKENS, or the file's
    dataset: str | None = None  # a file
    text: str | None = None  # a file
    shared_prefix: SharedPrefix | None = None
    prefix_cache: PrefixCache = "avoid"
    send_token_ids: bool = False
    temperature: float = 0.0
    top_p: float | None = None
    body: dict[str, Any] | None = None  # merged into every request
    ignore_eos: bool = True
    require_output_length: bool = False
    stream: bool = True

    # What counts as well
    goodput: tuple[tuple[GoodputLimit, float], ...] = ()  # seconds
    slo: tuple[str, ...] = ()
    strict: bool = False

    # The client
    connect_timeout: float = 10.0
    first_token_timeout: float = 300.0
    idle_timeout: float = 60.0
    timeout: float | None = None
    retry_429: int = 0
    workers: int | None = None  # None: from the calibration
    keepalive: bool = True
    http1_pool: int | None = None  # connections a worker; None: without limit
    metrics_url: str = "auto"  # or off, or a URL

    # What is shown and kept
    out: str | None = None  # None: named for the time and the model
    save: bool = True
    save_text: bool = False
    meta: tuple[tuple[str, str], ...] = ()
    quiet: bool = False
    progress: Literal["auto", "json"] = "auto"
    ascii: bool = False
    color: bool = True
    dry_run: bool = False

    @property
    def num_runs(self) -> int:
        """How often the whole list of stages is run."""
        return 1 if self.burst else self.repeat


DEFAULT_CONCURRENCY = (1, 4, 16)
DEFAULT_CONCURRENCY_DURATION_S = 20.0  # where no load was asked for
DEFAULT_DURATION_S = 60.0
DEFAULT_INPUT_TOKENS = Lengths(kind="fixed", value=512)
DEFAULT_OUTPUT_TOKENS = Lengths(kind="fixed", value=128)
