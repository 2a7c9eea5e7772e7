"""The warning that inputs which were meant to be new met a warm cache. Spec: bench.md section 7."""

from __future__ import annotations

from tgi_cli.runtime.bench.result import Result, Stage

MAX_SHARE = 0.01
_COUNTERS = (
    ("tgi_prefix_cache_hit_tokens", "tgi_prefix_cache_query_tokens"),
    ("vllm:prefix_cache_hits", "vllm:prefix_cache_queries"),
)
_OWN = ("shared-prefix", "conversations", "trace")
"""Loads whose inputs begin alike: some hits are their own."""


def cache_warning(result: Result) -> str | None:
    """Return what a report says first if `--prefix-cache avoid` was in vain, else None."""
    if result.config.get("prefix-cache", "avoid") != "avoid":
        return None
    shares = [(share, stage.key) for stage in result.stages if (share := hit_share(stage))]
    share, key = max(shares, default=(0.0, ""))
    if share <= MAX_SHARE:
        return None
    own = next((f" (--{name} repeats some)" for name in _OWN if result.config.get(name)), "")
    return (
        f"WARM CACHE: {100 * share:.1f} % of the input tokens of {key} were in the server's prefix "
        f"cache, despite --prefix-cache avoid{own}"
    )


def hit_share(stage: Stage) -> float | None:
    """Return the larger share of cached input tokens, by usage or by the server's counters."""
    shares = [] if stage.tokens.cached_fraction is None else [stage.tokens.cached_fraction]
    before, after = stage.server_metrics.before, stage.server_metrics.after
    for names in _COUNTERS:
        hits, queries = (_grown(before, after, name) for name in names)
        if queries > 0:
            shares.append(hits / queries)
    return max(shares, default=None)


def _grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    for full in (name, f"{name}_total"):
        if full in after:
            return after[full] - before.get(full, 0.0)
    return 0.0
