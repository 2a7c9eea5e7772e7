"""The `x-…` headers of a generation's reply (spec/http-api.md section 7.2)."""

from __future__ import annotations

from collections.abc import Sequence

from tgi_cli.runtime.router.generation import Generation


def stream_headers(compute_type: str, num_characters: int) -> dict[str, str]:
    return {"x-compute-type": compute_type, "x-compute-characters": str(num_characters)}


def reply_headers(
    compute_type: str,
    num_characters: int,
    generations: Sequence[Generation],
    *,
    has_compute_time: bool = True,
) -> dict[str, str]:
    """Return the headers of one reply; several generations are summed."""
    timings = [generation.timing for generation in generations]
    num_tokens = sum(generation.num_tokens for generation in generations)
    total_s = sum(timing.total_s for timing in timings)
    inference_s = sum(timing.inference_s for timing in timings)
    headers = stream_headers(compute_type, num_characters)
    if has_compute_time:
        headers["x-compute-time"] = f"{total_s:.9f}"  # never with an exponent
    milliseconds = {
        "x-total-time": total_s,
        "x-validation-time": sum(timing.validation_s for timing in timings),
        "x-queue-time": sum(timing.queue_s for timing in timings),
        "x-inference-time": inference_s,
        "x-time-per-token": inference_s / max(1, num_tokens),
    }
    headers |= {name: str(int(seconds * 1000)) for name, seconds in milliseconds.items()}
    num_prompt_tokens = sum(generation.input_length for generation in generations)
    headers["x-prompt-tokens"] = str(num_prompt_tokens)
    headers["x-generated-tokens"] = str(num_tokens)
    return headers
