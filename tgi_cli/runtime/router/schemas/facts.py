"""What the server says about itself, and `/tokenize`: spec/http-api.md sections 3, 4 and 13."""

from __future__ import annotations

from typing import Literal

import msgspec


class Info(msgspec.Struct, kw_only=True):
    """Model and limits: TGI's keys in TGI's order, then those that versions up to 2 had."""

    model_id: str
    model_sha: str | None
    model_pipeline_tag: str | None
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: Literal["text-generation-router"] = "text-generation-router"
    version: str
    sha: str | None
    docker_label: str | None
    model_dtype: str
    model_device_type: str
    waiting_served_ratio: float
    max_batch_total_tokens: int
    max_waiting_tokens: int
    max_batch_size: int | None
    max_input_length: int


class Model(msgspec.Struct):
    """A model or an adapter that requests can name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(msgspec.Struct):
    """The served model first, then its adapters."""

    object: Literal["list"]
    data: list[Model]


class HealthState(msgspec.Struct):
    """Whether the server works, and on how much."""

    status: Literal["ok", "idle", "draining", "failing", "stalled", "dead"]
    model: str
    running: int  # requests in a step
    waiting: int  # requests that no step has begun
    last_step_age_s: float | None  # None before the first step
    uptime_s: float


class SimpleToken(msgspec.Struct):
    """A token of a text, and where it lies there. Offsets are bytes."""

    id: int
    text: str
    start: int
    stop: int
