"""The engine's loop body: one step of planning, computing, sampling and stopping.

`step` is the only place where sequences change. It knows token ids and nothing of text, HTTP or
processes; `process.py` feeds it and sends what it returns.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.block_manager import BlockManager
from tgi_cli.runtime.engine.grammar.guides import Guides
from tgi_cli.runtime.engine.grammar.matcher import GrammarError
from tgi_cli.runtime.engine.plan import Chunk, StepPlan
from tgi_cli.runtime.engine.runner import StepRunner
from tgi_cli.runtime.engine.sampling.prompt_scores import score_prompt
from tgi_cli.runtime.engine.sampling.sampler import (
    SampledToken,
    Sampler,
    SamplerConfig,
    StepSampler,
)
from tgi_cli.runtime.engine.scheduler import Scheduler, SchedulerConfig
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.engine.stopping import finish_reason
from tgi_cli.runtime.ipc.messages import (
    NewRequest,
    RequestFailed,
    SequenceOutput,
    StepOutput,
    StepStats,
)
from tgi_cli.runtime.types import SamplingParams

_log = logging.getLogger(__name__)

Clock = Callable[[], int]

STEP_FAILED = "Server error: the step failed; the server's log has the reason"
NOT_FINITE = "Server error: the model's scores aren't finite"


@dataclass(slots=True)
class Run:
    """What came of a step's chunks."""

    sampled: list[tuple[Sequence, SampledToken]] = field(default_factory=list)
    broken: list[Sequence] = field(default_factory=list)  # whose own chunk raises
    forward_ns: int = 0  # of what succeeded
    sample_ns: int = 0


class Engine:
    def __init__(
        self,
        config: EngineConfig,
        runner: StepRunner,
        clock_ns: Clock = time.monotonic_ns,
        *,
        sampler: StepSampler | None = None,
        reserved_new_tokens: int = 1024,
    ) -> None:
        self._config = config
        self._runner = runner
        self._clock_ns = clock_ns
        self.blocks = BlockManager(
            config.num_blocks, config.block_size, prefix_caching=config.prefix_caching
        )
        self._scheduler = Scheduler(
            SchedulerConfig(
                max_step_tokens=config.max_step_tokens,
                max_running=config.max_running,
                reserved_new_tokens=reserved_new_tokens,
                prefill_chunking=config.prefill_chunking,
                waiting_served_ratio=config.waiting_served_ratio,
                max_waiting_tokens=config.max_waiting_tokens,
            ),
            self.blocks,
        )
        self._sampler = sampler or Sampler(SamplerConfig.of(config))
        self._guides = Guides(config)
        self._eos_token_ids = frozenset(config.eos_token_ids)
        self._refused: list[RequestFailed] = []  # told with the next step

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._refused) or self._guides.has_ready

    @property
    def is_compiling(self) -> bool:
        """Whether a request waits for its grammar, so that work may come up by itself."""
        return self._guides.num_held > 0

    def add(self, request: NewRequest) -> None:
        """Queue a request; one that this engine can't run fails with the next step."""
        reason = self._reason_to_refuse(request)
        if reason is not None:
            self._refuse(request, reason)
        elif request.grammar is not None:
            self._guides.add(request)
        else:
            self._scheduler.add(Sequence(request))

    def abort(self, request_id: int) -> None:
        """Forget a request and free its blocks; one that has ended is no longer known."""
        self._scheduler.remove(request_id)
        self._sampler.forget(request_id)
        self._guides.forget(request_id)

    def _refuse(self, request: NewRequest, reason: str) -> None:
        self._refused.append(RequestFailed(request.request_id, f"Server error: {reason}"))

    def _reason_to_refuse(self, request: NewRequest) -> str | None:
        """The router has checked all this; a wrong request still must not end the engine."""
        num_tokens = len(request.prompt_ids) + request.max_new_tokens
        if not request.prompt_ids or len(request.output_ids) >= request.max_new_tokens:
            return "a request needs a prompt and at least one token to generate"
        if num_tokens > self._config.max_total_tokens:
            return f"{num_tokens} tokens, limit {self._config.max_total_tokens}"
        token_ids = (*request.prompt_ids, *request.output_ids, *request.sampling.logit_bias)
        if min(token_ids) < 0 or max(token_ids) >= self._config.model.vocab_size:
            return "a token id outside the vocabulary"
        if request.grammar is not None and not self._guides.is_loaded:
            return "this engine guides no output"
        return None

    def step(self) -> StepOutput:
        """Run one step and return what it produced. Call only when there is work."""
        start_ns = self._clock_ns()
        self._admit_guided()
        plan = self._plan()
        started = self._mark_started(plan)
        run = Run()
        if plan.chunks:
            self._compute(plan.chunks, run)
        return self._answer(plan, run, started, start_ns)

    def _plan(self, *, may_preempt: bool = True) -> StepPlan:
        plan = self._scheduler.plan_step(may_preempt=may_preempt)
        if dirty := self.blocks.take_dirty():
            try:
                self._clear(dirty)
            except Exception:
                self.blocks.put_back_dirty(dirty)
                self._mark_started(plan)  # so that they fail, too: the runner has no tables of them
                raise
        return plan

    def _clear(self, block_ids: list[int]) -> None:
        """Zero blocks, at the second try if memory ran out at the first."""
        try:
            self._runner.clear_blocks(block_ids)
        except Exception as exc:
            if not self._runner.recover(exc):
                raise
            self._runner.clear_blocks(block_ids)

    def _answer(self, plan: StepPlan, run: Run, started: list[int], start_ns: int) -> StepOutput:
        """Give every sequence of a step its token, and say what came of it."""
        outputs: list[SequenceOutput] = []
        failures = [self._fail(seq, STEP_FAILED) for seq in run.broken]
        for seq, token in run.sampled:
            self._accept(seq, token, outputs, failures)
        failures += self._take_refused()
        return StepOutput(outputs, failures, started, start_ns, self._stats(plan, start_ns, run))

    def fail_running(self) -> StepOutput:
        """Drop every request that was part of a step, after one that raised; the others stay."""
        start_ns = self._clock_ns()
        failures = self._take_refused()
        everyone = self._scheduler.sequences
        # A step that raised before it chose anybody would raise for ever if all were kept.
        for seq in [seq for seq in everyone if seq.started] or everyone:
            failures.append(self._fail(seq, STEP_FAILED))
        stats = self._stats(StepPlan(budget=0), start_ns, Run())
        return StepOutput([], failures, [], start_ns, stats)

    def report(self) -> StepOutput:
        """Return the state without a step, for when an abort has left nothing to do."""
        now_ns = self._clock_ns()
        return StepOutput([], [], [], now_ns, self._stats(StepPlan(budget=0), now_ns, Run()))

    def warm_up(self) -> None:
        """Run a prompt of the largest step and a decode, so that the first request finds all set.

        Raises:
            RuntimeError: a step failed, most likely for want of memory; the log has the reason.
        """
        self._guides.load()
        for request in self._warm_up_requests():
            self.add(request)
            while self.has_work:
                output = self.step()
                if output.failures:
                    raise RuntimeError(output.failures[0].message)
        self.blocks.clear_cache()

    def _warm_up_requests(self) -> list[NewRequest]:
        num_tokens = max(1, min(self._config.max_step_tokens, self._config.max_total_tokens - 2))
        return [NewRequest(-1, [0] * num_tokens, 2, SamplingParams(), ignore_eos=True)]

    def check_integrity(self) -> None:
        """Assert that queues and blocks agree. For tests."""
        self._scheduler.check_integrity()

    def _take_refused(self) -> list[RequestFailed]:
        refused, self._refused = self._refused, []
        return refused

    def _admit_guided(self) -> None:
        """Queue the requests whose grammars are compiled by now."""
        for request, error in self._guides.take_ready():
            if error is None:
                self._scheduler.add(Sequence(request))
            else:
                self._refuse(request, str(error))

    def _mark_started(self, plan: StepPlan) -> list[int]:
        started = [seq.request_id for seq in plan.sequences if not seq.started]
        for seq in plan.sequences:
            seq.started = True
        return started

    def _compute(self, chunks: list[Chunk], run: Run, *, is_second_try: bool = False) -> None:
        """Run chunks and sample. If that raises, do so for each half, down to who is to blame.

        Nothing of a sequence changes before its chunk has succeeded, so that a chunk may be run
        again: the same keys and values are written to the same slots. Of n chunks, a bad one costs
        the time of about two more steps, and n bad ones that of log2(n). Where the runner can do
        something about the reason, they are first tried again as they are.
        """
        try:
            self._compute_together(chunks, run)
        except Exception as exc:
            # As at the edge of the process: who caused it gets an answer, the others go on.
            _log.exception("event=forward_failed batch_size=%d", len(chunks))
            can_help = self._runner.recover(exc)
        else:
            return
        if can_help and not is_second_try:
            self._compute(chunks, run, is_second_try=True)
            return
        if len(chunks) == 1:
            run.broken.append(chunks[0].seq)
            return
        half = len(chunks) // 2
        self._compute(chunks[:half], run)
        self._compute(chunks[half:], run)

    def _compute_together(self, chunks: list[Chunk], run: Run) -> None:
        before_ns = self._clock_ns()
        finishing = [chunk.seq for chunk in chunks if chunk.is_last]
        ids = [seq.request_id for seq in finishing]
        self._guides.start_masks(ids)
        scores = self._runner.run(StepPlan(budget=0, chunks=chunks), score_prompt)
        between_ns = self._clock_ns()
        tokens = self._sampler.sample(scores, finishing, self._guides.bitmasks(ids))
        for chunk in chunks:
            chunk.seq.num_computed_tokens = chunk.end
        run.sampled += zip(finishing, tokens, strict=True)
        run.forward_ns += between_ns - before_ns
        run.sample_ns += self._clock_ns() - between_ns

    def _fail(
        self, seq: Sequence, message: str, *, distrusts_prefix: bool = False
    ) -> RequestFailed:
        self._scheduler.remove_failed(seq, distrusts_prefix=distrusts_prefix)
        self._sampler.forget(seq.request_id)
        self._guides.forget(seq.request_id)
        return RequestFailed(seq.request_id, message)

    def _accept(
        self,
        seq: Sequence,
        token: SampledToken,
        outputs: list[SequenceOutput],
        failures: list[RequestFailed],
    ) -> None:
        """Append a sampled token to its sequence and say so; end the sequence if it is over."""
        if not math.isfinite(token.logprob):
            _log.error("event=not_finite request=%d position=%d", seq.request_id, seq.num_tokens)
            failures.append(self._fail(seq, NOT_FINITE, distrusts_prefix=True))
            return
        seq.num_sound_tokens = seq.num_computed_tokens
        try:
            is_complete = self._guides.accept(seq.request_id, token.token_id)
        except GrammarError as exc:
            _log.warning("event=grammar_failed request=%d reason=%s", seq.request_id, exc)
            failures.append(self._fail(seq, f"Server error: {exc}"))
            return
        seq.token_ids.append(token.token_id)
        reason = finish_reason(seq, self._eos_token_ids, is_complete=is_complete)
        logprobs = [token.logprob] if seq.wants_logprobs else []
        top_tokens = [list(token.top)] if seq.top_n_tokens else []
        outputs.append(
            SequenceOutput(
                seq.request_id,
                [token.token_id],
                logprobs,
                reason,
                top_tokens,
                seq.take_prompt_scores() if seq.scores_prompt else [],
            )
        )
        if reason is not None:
            self.abort(seq.request_id)

    def _stats(self, plan: StepPlan, start_ns: int, run: Run) -> StepStats:
        num_prefill_tokens = plan.num_prefill_tokens
        return StepStats(
            is_prefill=num_prefill_tokens > 0,
            num_prefill_tokens=num_prefill_tokens,
            num_decode_tokens=plan.num_decode_tokens,
            batch_size=len(plan.chunks) - len(run.broken),
            num_joined=plan.num_joined,
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting + self._guides.num_held,
            num_blocks_used=self.blocks.num_used_blocks,
            num_reserved_tokens=self.blocks.num_reserved_blocks * self._config.block_size,
            num_preempted=len(plan.preempted),
            forward_s=run.forward_ns / 1e9,
            sample_s=run.sample_ns / 1e9,
            step_s=(self._clock_ns() - start_ns) / 1e9,
            num_prefix_hit_tokens=plan.num_prefix_hit_tokens,
            num_prefix_query_tokens=plan.num_prefix_query_tokens,
            join_reason=plan.join_reason,
        )
