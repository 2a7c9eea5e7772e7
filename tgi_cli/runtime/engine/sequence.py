"""One generation of one request, as the engine sees it: ids, how far they are computed, its blocks.

Owns no tensors. Lengths and positions are tokens; a token is *computed* when its keys and values
are in the cache.
"""

from __future__ import annotations

from tgi_cli.runtime.ipc.messages import NewRequest, PromptScore

NO_ROW = -1
PENDING = -1  # in place of a token that a launched step will give: it is on the device only


class Sequence:
    """State of a generation from admission to its last token."""

    __slots__ = (
        "block_table",
        "has_ended",
        "ignore_eos",
        "max_new_tokens",
        "namespace",
        "num_computed_tokens",
        "num_prompt_tokens",
        "num_reserved_blocks",
        "num_shared_blocks",
        "num_sound_tokens",
        "prompt_scores",
        "prompt_top_n",
        "request_id",
        "row",
        "sampling",
        "scores_prompt",
        "started",
        "takes_best",
        "token_ids",
        "top_n_tokens",
        "wants_logprobs",
    )

    def __init__(self, request: NewRequest) -> None:
        assert request.prompt_ids, "the router refuses empty prompts"
        self.request_id = request.request_id
        self.sampling = request.sampling
        self.takes_best = request.sampling.takes_best
        self.top_n_tokens = request.top_n_tokens
        self.wants_logprobs = request.logprobs
        self.ignore_eos = request.ignore_eos
        self.max_new_tokens = request.max_new_tokens
        self.num_prompt_tokens = len(request.prompt_ids)
        self.token_ids = request.prompt_ids + request.output_ids
        self.namespace = ""  # of its prefix: what keys and values depend on besides the ids
        # With the first output token they are sent, so one that brings output has had them.
        self.scores_prompt = request.scores_prompt and not request.output_ids
        self.prompt_top_n = request.prompt_top_n
        self.prompt_scores: list[PromptScore] = []  # of the prompt's second token, its third, ...
        self.num_computed_tokens = 0
        self.num_sound_tokens = 0  # of those computed; the scores after them were numbers
        self.block_table: list[int] = []
        self.num_shared_blocks = 0  # of the table, at its front: the prefix cache owns them
        self.num_reserved_blocks = 0  # promised by the block manager, held ones included
        self.row = NO_ROW  # its line in the batch's block tables while it runs
        self.started = False  # whether a step has worked on it
        self.has_ended = False  # and keeps its blocks only for a step that was launched before

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_remaining_tokens(self) -> int:
        """New tokens that may still come."""
        return self.max_new_tokens - self.num_output_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_due(self) -> bool:
        """Whether a step may compute more of it: not once it ends, or its last token is pending."""
        return not self.has_ended and self.num_remaining_tokens > 0

    @property
    def is_decoding(self) -> bool:
        """Whether only its newest token is left to compute."""
        return (
            self.num_computed_tokens >= self.num_prompt_tokens and self.num_uncomputed_tokens == 1
        )

    def take_prompt_scores(self) -> list[PromptScore]:
        """Return the scores that were collected; they are given once, and need no more rows."""
        scores, self.prompt_scores = self.prompt_scores, []
        self.scores_prompt = False
        return scores

    def __repr__(self) -> str:
        return (
            f"Sequence(request_id={self.request_id}, computed={self.num_computed_tokens}"
            f"/{self.num_tokens}, blocks={len(self.block_table)})"
        )
