"""The promise, to the bit: a sequence's logits don't depend on its neighbours or on the chunks.

The native kernels hold it by construction.
"""

from __future__ import annotations

import pytest
import torch

from tests.builders.model import engine_config, make_runner, prompt_logits
from tgi_cli.errors import DeterminismError
from tgi_cli.kernels import native
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.determinism import Determinism, Stepper
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.layers.head import Scores

NUM_REQUESTS = 24
needs_native = pytest.mark.skipif(
    not native.is_available(), reason="without the native library torch promises nothing"
)


@pytest.fixture(scope="module")
def config() -> EngineConfig:
    return engine_config(locate_model("demo"), max_total_tokens=320, num_blocks=400)


@pytest.fixture(scope="module", params=[False, True], ids=["float16", "own_grid"])
def determinism(request: pytest.FixtureRequest) -> Determinism:
    config = engine_config(
        locate_model("demo"), max_total_tokens=320, num_blocks=400, keeps_grid=request.param
    )
    return Determinism(make_runner(config), config, NUM_REQUESTS)


@needs_native
def test_logits_are_the_same_bits_alone_together_in_chunks_and_with_one_thread(determinism):
    assert len(determinism.prompts) == NUM_REQUESTS

    determinism.verify()


@needs_native
def test_logits_are_the_same_bits_whole_and_in_chunks_beside_a_decode(config):
    runner = make_runner(config)
    prompt = [(131 * i) % 49152 for i in range(301)]
    stepper = Stepper(runner, config)
    [expected] = stepper.step([(stepper.add(prompt), len(prompt))]).values()
    for size in (100, 64):
        stepper = Stepper(runner, config)
        seq, neighbour = stepper.add(prompt), stepper.add(prompt[:23])
        stepper.step([(neighbour, 23)])
        while seq.num_uncomputed_tokens:
            neighbour.token_ids.append(5)
            chunk = min(size, seq.num_uncomputed_tokens)
            logits = stepper.step([(neighbour, 1), (seq, chunk)])

        assert torch.equal(logits[seq.request_id], expected), size


@needs_native
def test_a_models_own_grid_gives_the_logits_of_its_weights_in_fp32():
    located, prompt = locate_model("demo"), [(131 * i) % 49152 for i in range(40)]
    sizes = {"dtype": "float32", "max_total_tokens": 64, "num_blocks": 4}

    on_grid = prompt_logits(engine_config(located, keeps_grid=True, **sizes), prompt, 40)
    widened = prompt_logits(engine_config(located, **sizes), prompt, 40)

    # The same numbers, but sums are scaled once a group (docs/adr/0010): rounded elsewhere.
    assert (on_grid - widened).norm() / widened.norm() < 1e-5


@needs_native
@pytest.mark.parametrize("max_total_tokens", [2, 36])
def test_small_limits_are_verified_too(max_total_tokens):
    config = engine_config(
        locate_model("demo"), max_total_tokens=max_total_tokens, num_blocks=8, max_running=3
    )

    Determinism(make_runner(config), config).verify()


def test_other_bits_in_company_are_found_and_named(config):
    runner = make_runner(config)
    run = runner.run

    def disturbed(plan):
        scores = run(plan)
        return Scores.of(scores.logits + 1e-3) if len(plan.chunks) > 1 else scores

    runner.run = disturbed  # type: ignore[method-assign]

    with pytest.raises(DeterminismError, match="gives other bits together with others than alone"):
        Determinism(runner, config, 3).verify()


@needs_native
def test_other_bits_on_cached_blocks_are_found_and_named(config):
    runner = make_runner(config)
    run = runner.run

    def disturbed(plan):
        scores = run(plan)
        goes_on = any(chunk.start > 0 and chunk.num_tokens > 1 for chunk in plan.chunks)
        return Scores.of(scores.logits + 1e-3) if goes_on else scores

    runner.run = disturbed  # type: ignore[method-assign]

    with pytest.raises(DeterminismError, match="gives other bits on cached blocks than alone"):
        Determinism(runner, config, 6).verify()
