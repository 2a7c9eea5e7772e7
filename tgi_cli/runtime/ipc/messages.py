"""The messages between the router's process and an engine. Token ids, never text.

    router  ──► StartEngine, NewRequest, AbortRequest, ShutDown
    engine  ──► EngineReady | EngineFailed, then one StepOutput per step

Times are `time.monotonic_ns()`: one clock for all processes of a machine. Encoded as msgpack arrays
with a tag; `channel.py` frames them.
"""

from __future__ import annotations

import msgspec

from tgi_cli.runtime.types import FinishReason, Grammar, JoinReason, SamplingParams


class StartEngine(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first message to an engine."""

    config: bytes  # an EngineConfig in JSON; ipc may not import runtime.config


class NewRequest(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Generate from `prompt_ids + output_ids`.

    `output_ids` is empty for a new request. A request that is resumed after an engine's death
    brings the tokens that it already has; they count against `max_new_tokens` and are not sent
    again.
    """

    request_id: int
    prompt_ids: list[int]
    max_new_tokens: int  # inclusive, counts `output_ids`
    sampling: SamplingParams
    output_ids: list[int] = []
    logprobs: bool = True  # whether SequenceOutput.logprobs is wanted
    ignore_eos: bool = False
    top_n_tokens: int = 0  # best tokens to report for each new one
    scores_prompt: bool = False  # whether SequenceOutput.prompt_scores is wanted
    prompt_top_n: int = 0  # best tokens to report for each of the prompt
    grammar: Grammar | None = None  # what the new tokens must spell


class AbortRequest(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Forget the request and free its blocks. Unknown ids are ignored: it may just have ended."""

    request_id: int


class ShutDown(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """End the engine now; the router sends this when nothing runs any more."""


class EngineReady(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The model is loaded and has answered its warm-up step."""

    num_blocks: int
    block_size: int  # tokens
    weights_bytes: int  # resident, after packing
    load_s: float
    kernels: str  # which implementation computes, for the start table and the log


class EngineFailed(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The engine can't start; `kind` is a key of `errors.START_ERRORS`."""

    kind: str
    message: str
    hint: str | None


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """A token that was or could have been chosen."""

    id: int
    logprob: float


class PromptScore(msgspec.Struct, frozen=True, array_like=True):
    """How likely a token of the prompt was after those before it: the model's own scores."""

    logprob: float
    top: list[TokenScore] = []  # best first


class SequenceOutput(msgspec.Struct, frozen=True, array_like=True):
    """New tokens of one request. The one with a `finish_reason` is its last."""

    request_id: int
    token_ids: list[int]
    logprobs: list[float]  # one per token, or empty when not asked for
    finish_reason: FinishReason | None
    # One list per token, best first, ties with the last kept; empty when not asked for.
    top_tokens: list[list[TokenScore]] = []
    # With the first output, if asked for: one for each prompt token but the first.
    prompt_scores: list[PromptScore] = []


class RequestFailed(msgspec.Struct, frozen=True, array_like=True):
    """A request that the engine dropped; `message` is safe to show to its client."""

    request_id: int
    message: str


class StepStats(msgspec.Struct, frozen=True, array_like=True):
    """What the step did and what is left, for metrics and health. Counts are after the step."""

    is_prefill: bool  # computed at least one prompt token
    num_prefill_tokens: int
    num_decode_tokens: int
    batch_size: int  # sequences in this step
    num_joined: int  # sequences that were admitted in this step
    num_running: int
    num_waiting: int
    num_blocks_used: int
    num_reserved_tokens: int  # token slots promised to running sequences
    num_preempted: int
    forward_s: float  # the model
    sample_s: float  # logits to tokens
    step_s: float  # inbox to outbox
    # Of the requests admitted in this step: prompt tokens found in, and looked up in, the cache.
    num_prefix_hit_tokens: int = 0
    num_prefix_query_tokens: int = 0
    join_reason: JoinReason | None = None  # if `num_joined` joined sequences that ran already


class StepOutput(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Everything that one step has to say."""

    outputs: list[SequenceOutput]
    failures: list[RequestFailed]
    started: list[int]  # requests whose first token was computed or begun in this step
    start_ns: int  # when the step began
    stats: StepStats


ToEngine = StartEngine | NewRequest | AbortRequest | ShutDown
FromEngine = EngineReady | EngineFailed | StepOutput
