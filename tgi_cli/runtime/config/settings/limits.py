"""Options that bound requests and batches."""

from __future__ import annotations

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.settings.setting import BATCHING, LIMITS, Setting, count, switch

LIMIT_SETTINGS: tuple[Setting, ...] = (
    count(
        "max_concurrent_requests",
        LIMITS,
        "Requests in the server at once; one more is refused with status 429.",
    ),
    count("max_best_of", LIMITS, "Highest best_of that a request may ask for."),
    count("max_stop_sequences", LIMITS, "Most stop sequences in one request."),
    count("max_top_n_tokens", LIMITS, "Highest top_n_tokens that a request may ask for."),
    count(
        "max_input_tokens",
        LIMITS,
        "Longest prompt, in tokens.",
        note="max-total-tokens less 1",
    ),
    count("max_input_length", LIMITS, "Deprecated name of --max-input-tokens."),
    count(
        "max_total_tokens",
        LIMITS,
        "Longest prompt and output together, in tokens.",
        note="what the model was made for, if the KV cache holds it",
    ),
    switch(
        "strict_lengths",
        LIMITS,
        "Refuse a max_new_tokens that can't fit beside the prompt, as TGI 2 did.",
    ),
    count("max_client_batch_size", LIMITS, "Most prompts in one call of /v1/completions."),
    count("payload_limit", LIMITS, "Longest request body, in bytes."),
    count(
        "max_image_fetch_size",
        LIMITS,
        "Longest image to fetch, in bytes; this version takes no images.",
        no_effect="this version takes no images",
    ),
)

BATCHING_SETTINGS: tuple[Setting, ...] = (
    count(
        "max_batch_prefill_tokens",
        BATCHING,
        "Most tokens in one forward pass; longer prompts are computed in chunks.",
        note="4096, or the model's longest context if shorter",
    ),
    count(
        "max_batch_total_tokens",
        BATCHING,
        "Most token slots in the KV cache.",
        note="what the free memory holds and the other limits can use",
    ),
    Setting(
        name="waiting_served_ratio",
        group=BATCHING,
        parse=parsers.ratio,
        metavar="RATIO",
        help="Waiting to running requests from which decoding is interrupted; "
        "only with PREFILL_CHUNKING=0.",
    ),
    count(
        "max_waiting_tokens",
        BATCHING,
        "Decode steps after which a waiting request is let in; only with PREFILL_CHUNKING=0.",
    ),
    count("max_batch_size", BATCHING, "Most sequences in one batch.", note="no limit of its own"),
    count("validation_workers", BATCHING, "Threads that tokenize."),
)
