"""An engine whose model is a table of chances, with a byte-level tokenizer: output to be guided."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import torch

from tests.builders.engine import TINY_MODEL, engine_config
from tests.builders.tokenizers import byte_level_tokenizer
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import ScorePrompt
from tgi_cli.runtime.ipc.messages import NewRequest, SequenceOutput
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.text.tokenizer import Tokenizer
from tgi_cli.runtime.types import FinishReason, Grammar, SamplingParams

TOKENIZER = Tokenizer(byte_level_tokenizer())
VOCAB_SIZE, END_ID = 319, 300  # the model's vocabulary is padded
_MODEL = msgspec.structs.replace(TINY_MODEL, vocab_size=VOCAB_SIZE)
# Characters that bring an output to its end, so that tests do too.
_CLOSERS = [TOKENIZER.encode(text, add_special_tokens=False)[0] for text in '"}],']


class ChanceRunner:
    """Logits are random, and a function of the sequence's tokens and the seed only."""

    def __init__(self, seed: int = 0, closing: float = 2.0) -> None:
        self._seed = seed
        self._closing = closing  # added to what ends strings, lists and objects

    def run(self, plan: StepPlan, score_prompt: ScorePrompt | None = None) -> Scores:
        rows = []
        for chunk in plan.chunks:
            if score_prompt is not None and (positions := chunk.scoring_positions):
                score_prompt(chunk.seq, torch.zeros(len(positions), VOCAB_SIZE))
            if chunk.is_last:
                rng = random.Random(repr((self._seed, chunk.seq.token_ids)))
                generator = torch.Generator().manual_seed(rng.getrandbits(63))
                row = torch.randn(VOCAB_SIZE, generator=generator)
                row[[*_CLOSERS, END_ID]] += self._closing
                rows.append(row)
        return Scores.of(torch.stack(rows) if rows else torch.empty(0, VOCAB_SIZE))

    def clear_blocks(self, block_ids: list[int]) -> None:
        pass

    def recover(self, exc: Exception) -> bool:
        raise exc


def guided_config(**changes: Any) -> EngineConfig:
    fields = {
        "model": _MODEL,
        "tokenizer_json": byte_level_tokenizer().tokenizer_json,
        "eos_token_ids": (END_ID,),
        "num_blocks": 2000,
        "max_total_tokens": 1200,
    }
    return engine_config(**{**fields, **changes})


def guided_engine(
    *, seed: int = 0, closing: float = 2.0, reserved_new_tokens: int = 1024, **config: Any
) -> Engine:
    engine = Engine(
        guided_config(**config),
        ChanceRunner(seed, closing),
        reserved_new_tokens=reserved_new_tokens,
    )
    engine.warm_up()
    return engine


def guided_request(
    grammar: Grammar | None,
    request_id: int = 0,
    *,
    max_new_tokens: int = 1000,
    output_ids: list[int] | None = None,
    ignore_eos: bool = False,
    **sampling: Any,
) -> NewRequest:
    return NewRequest(
        request_id,
        [3, 5 + request_id % 7, 8],
        max_new_tokens,
        SamplingParams(**sampling),
        output_ids or [],
        ignore_eos=ignore_eos,
        grammar=grammar,
    )


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def finish(engine: Engine) -> dict[int, list[SequenceOutput]]:
    """Step until nothing is left; return the outputs of each request. Failures fail the test."""
    return finish_counting(engine)[0]


def finish_counting(
    engine: Engine, max_steps: int = 5000
) -> tuple[dict[int, list[SequenceOutput]], int]:
    """As `finish`, with the number of preemptions."""
    outputs: dict[int, list[SequenceOutput]] = {}
    num_preempted = 0
    for _ in range(max_steps):
        wait_compiled(engine)
        if not engine.has_work:
            return outputs, num_preempted
        step = engine.step()
        num_preempted += step.stats.num_preempted
        engine.check_integrity()
        assert not step.failures, step.failures
        for output in step.outputs:
            outputs.setdefault(output.request_id, []).append(output)
    raise AssertionError("the engine makes no progress")


def wait_compiled(engine: Engine) -> None:
    """Wait until every grammar that the engine holds is compiled."""
    for _, matcher in engine._guides._held.values():
        matcher.exception()


def tokens_of(outputs: list[SequenceOutput]) -> list[int]:
    return [token_id for output in outputs for token_id in output.token_ids]


def text_of(outputs: list[SequenceOutput]) -> str:
    return TOKENIZER.decode(tokens_of(outputs), skip_special_tokens=True)


def generate(
    grammar: Grammar, *, seed: int = 0, closing: float = 2.0, **request: Any
) -> tuple[str, FinishReason | None]:
    """Return the text of one guided request, and why it ended."""
    engine = guided_engine(seed=seed, closing=closing)
    engine.add(guided_request(grammar, **request))
    outputs = finish(engine)[0]
    return text_of(outputs), outputs[-1].finish_reason
