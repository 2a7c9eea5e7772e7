"""What one step computes: the scheduler writes it, the batch is built from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.types import JoinReason


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `num_tokens` uncomputed tokens of a sequence."""

    seq: Sequence
    start: int  # position of the first token
    num_tokens: int
    new_blocks: list[int]  # appended to the sequence's block table for this step

    @property
    def end(self) -> int:
        return self.start + self.num_tokens

    @property
    def is_last(self) -> bool:
        """Whether the step computes the sequence's newest token, so that a next one is sampled."""
        return self.end == self.seq.num_tokens

    @property
    def scoring_positions(self) -> range:
        """Positions whose logits score a token of the prompt that has no score yet."""
        seq = self.seq
        if not seq.scores_prompt or self.start >= seq.num_prompt_tokens:
            return range(0)
        assert self.start <= len(seq.prompt_scores), "scores can't be had from cached tokens"
        return range(len(seq.prompt_scores), min(self.end, seq.num_prompt_tokens - 1))

    @property
    def is_decode(self) -> bool:
        return self.num_tokens == 1 and self.start >= self.seq.num_prompt_tokens


@dataclass(slots=True)
class StepPlan:
    budget: int  # tokens that may still be added
    chunks: list[Chunk] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    is_short: bool = False  # somebody was left out who would have had to preempt another
    num_joined: int = 0  # sequences admitted in this step
    join_reason: JoinReason | None = None  # why they joined a running batch, if there was one
    num_prefix_hit_tokens: int = 0  # of those admitted for the first time: found in the cache
    num_prefix_query_tokens: int = 0  # and looked up there

    @property
    def sequences(self) -> list[Sequence]:
        return [chunk.seq for chunk in self.chunks]

    @property
    def scores_prompts(self) -> bool:
        return any(chunk.scoring_positions for chunk in self.chunks)

    @property
    def num_decode_tokens(self) -> int:
        return sum(chunk.is_decode for chunk in self.chunks)

    @property
    def num_prefill_tokens(self) -> int:
        return sum(chunk.num_tokens for chunk in self.chunks if not chunk.is_decode)

    def add(self, seq: Sequence, num_tokens: int, new_blocks: list[int]) -> None:
        assert 0 < num_tokens <= self.budget, (num_tokens, self.budget)
        self.chunks.append(Chunk(seq, seq.num_computed_tokens, num_tokens, new_blocks))
        self.budget -= num_tokens
