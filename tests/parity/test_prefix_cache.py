"""Cached or not, the same bits: a real model's scores with the prefix cache on and off.

Spec: scheduling.md section 6, and section 16 rule 6.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.builders.engine import run_to_end
from tests.builders.model import engine_config, make_runner
from tgi_cli.kernels import native
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.types import SamplingParams

if TYPE_CHECKING:
    from tgi_cli.runtime.engine.plan import StepPlan
    from tgi_cli.runtime.engine.runner import Runner

VOCAB_SIZE = 49152
pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="without the native library torch promises nothing"
)


class Recorder:
    """A runner that keeps a digest of every row of scores, and counts what it computes."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.digests: dict[tuple[int, int], bytes] = {}  # by request and number of tokens
        self.num_tokens = 0

    def run(self, plan: StepPlan, score_prompt: Any = None) -> Any:
        scores = self._runner.run(plan, score_prompt)
        finishing = [chunk for chunk in plan.chunks if chunk.is_last]
        for chunk, row in zip(finishing, scores.logits, strict=True):
            digest = hashlib.blake2b(row.numpy().tobytes()).digest()
            self.digests[chunk.seq.request_id, chunk.end] = digest
        self.num_tokens += sum(chunk.num_tokens for chunk in plan.chunks)
        return scores

    def clear_blocks(self, block_ids: list[int]) -> None:
        self._runner.clear_blocks(block_ids)


@pytest.fixture(scope="module", params=[False, True], ids=["float16", "own_grid"])
def served(request: pytest.FixtureRequest) -> tuple[EngineConfig, Runner]:
    config = engine_config(
        locate_model("demo"), max_total_tokens=320, num_blocks=200, keeps_grid=request.param
    )
    return config, make_runner(config)


def make_engine(
    served: tuple[EngineConfig, Runner], *, prefix_caching: bool
) -> tuple[Engine, Recorder]:
    config, runner = served
    recorder = Recorder(runner)
    config = msgspec.structs.replace(config, prefix_caching=prefix_caching)
    return Engine(config, recorder), recorder  # type: ignore[arg-type]


def greedy(request_id: int, prompt_ids: list[int], max_new_tokens: int) -> NewRequest:
    return NewRequest(request_id, prompt_ids, max_new_tokens, SamplingParams(), ignore_eos=True)


def token_ids(count: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(VOCAB_SIZE) for _ in range(count)]


def test_the_second_turn_of_a_chat_has_the_same_bits_on_the_blocks_of_the_first(served):
    results = []
    for prefix_caching in (True, False):
        engine, recorder = make_engine(served, prefix_caching=prefix_caching)
        history = token_ids(75, seed=1)
        for turn in range(3):
            engine.add(greedy(turn, list(history), 23))
            engine.add(greedy(90 + turn, token_ids(9, seed=turn), 30))  # company
            history += run_to_end(engine)[turn] + token_ids(11, seed=50 + turn)
        results.append((recorder.digests, recorder.num_tokens))
    (cached, num_computed), (uncached, num_all) = results

    assert cached == uncached
    assert num_all - num_computed == 96 + 128  # whole blocks of the 98, and 132, tokens before


def test_a_prompt_that_is_cached_to_its_last_token_has_the_same_bits(served):
    engine, recorder = make_engine(served, prefix_caching=True)
    prompt_ids = token_ids(64, seed=3)
    for request_id in range(2):
        engine.add(greedy(request_id, prompt_ids, 3))
        run_to_end(engine)

    ends = range(64, 67)
    assert [recorder.digests[1, end] for end in ends] == [recorder.digests[0, end] for end in ends]
    assert recorder.num_tokens == (64 + 2) + (32 + 2)


@pytest.mark.parametrize("served", [False], indirect=True, ids=["float16"])
def test_a_hundred_shuffled_chats_that_share_a_prefix_say_the_same_with_and_without(served):
    system = token_ids(70, seed=0)
    chats = [
        system + token_ids(5 + 9 * (i % 7), seed=i % 7) + token_ids(2 + i % 13, seed=100 + i)
        for i in range(100)
    ]
    order = random.Random(5).sample(range(100), 100)
    results = []

    for prefix_caching in (True, False):
        engine, recorder = make_engine(served, prefix_caching=prefix_caching)
        for index in order:
            engine.add(greedy(index, chats[index], 4 + index % 3))
        tokens = run_to_end(engine)
        results.append((tokens, recorder.digests, recorder.num_tokens))

    assert results[0][:2] == results[1][:2]
    assert results[0][2] < 0.8 * results[1][2], "nothing was shared"
