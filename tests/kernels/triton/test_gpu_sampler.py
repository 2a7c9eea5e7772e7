"""The sampler of a GPU, its kernels interpreted, beside the CPU's."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.engine import VOCAB_SIZE, request, run_to_end
from tests.builders.fake_gpu import FakeGpu
from tests.builders.gpu_model import gpu_config, make_gpu_runner, make_plain_runner
from tests.builders.guided import (
    ChanceRunner,
    finish,
    guided_config,
    guided_engine,
    guided_request,
    text_of,
    tokens_of,
)
from tgi_cli.kernels import devices
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.overlapped import OverlappedEngine
from tgi_cli.runtime.engine.sampling.gpu_sampler import GpuSampler
from tgi_cli.runtime.engine.sampling.launched import MixedSampler
from tgi_cli.runtime.engine.sampling.sampler import SampledToken, Sampler, SamplerConfig
from tgi_cli.runtime.engine.sequence import PENDING, Sequence
from tgi_cli.runtime.engine.staging import Staging
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.types import Grammar

ENDS = (40, 41)
CONFIG = SamplerConfig(VOCAB_SIZE, ENDS)


@pytest.fixture(autouse=True)
def everything_is_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "is_gpu", lambda x: True)


class OneGpu:
    """A sampler on a device of its own, whose steps are waited for."""

    def __init__(self, max_running: int = 12) -> None:
        self.gpu = FakeGpu()
        self.staging = Staging(self.gpu)
        self.sampler = GpuSampler(CONFIG, self.gpu, self.staging, max_running=max_running)

    def sample(self, logits: torch.Tensor, sequences: list[Sequence], *masks: Any) -> Any:
        self.staging.next_step()
        scores = Scores.of(logits.clone())
        samples = self.sampler.launch(scores, sequences, list(masks) or None)
        over = self.gpu.new_event()
        over.record()
        over.synchronize()
        tokens = samples.fetch()
        assert [token.token_id for token in tokens] == samples.token_ids.tolist()
        return tokens


def sequences_of(*requests: NewRequest) -> list[Sequence]:
    sequences = [Sequence(each) for each in requests]
    for row, seq in enumerate(sequences):
        seq.row = row
    return sequences


def reporting(top_n: int, new: NewRequest) -> NewRequest:
    return msgspec.structs.replace(new, top_n_tokens=top_n)


def on_cpu(logits: torch.Tensor, sequences: list[Sequence], *masks: Any) -> list[SampledToken]:
    return Sampler(CONFIG).sample(Scores.of(logits.clone()), sequences, list(masks) or None)


def random_rows(num_rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 3


def mask_of(ids: set[int]) -> torch.Tensor:
    words = [sum(1 << bit for bit in range(32) if 32 * word + bit in ids) for word in range(4)]
    return torch.tensor(words, dtype=torch.int64).to(torch.int32)


def assert_same(tokens: list[SampledToken], expected: list[SampledToken]) -> None:
    for token, wanted in zip(tokens, expected, strict=True):
        assert token.token_id == wanted.token_id
        assert token.logprob == pytest.approx(wanted.logprob, abs=2e-5)
        assert [score.id for score in token.top] == [score.id for score in wanted.top]
        logprobs = [score.logprob for score in token.top]
        assert logprobs == pytest.approx([score.logprob for score in wanted.top], abs=2e-5)
        own = [score.logprob for score in token.top if score.id == token.token_id]
        assert own in ([], [token.logprob])


PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "do_sample": st.booleans(),
        "temperature": st.floats(0.1, 5.0),
        "top_k": st.integers(0, VOCAB_SIZE + 5),
        "top_p": st.floats(0.05, 1.0),
        "min_p": st.floats(0.0, 0.9),
        "repetition_penalty": st.floats(0.5, 2.0),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(
            st.integers(0, VOCAB_SIZE - 1), st.floats(-100, 100), max_size=5
        ),
        "min_tokens": st.integers(0, 5),
        "seed": st.integers(0, 2**64 - 1),
    },
)
ROW = st.tuples(PARAMS, st.none() | st.sets(st.integers(0, VOCAB_SIZE - 1), min_size=1))


@settings(max_examples=4, deadline=None)
@given(rows=st.lists(ROW, min_size=9, max_size=9), top_n=st.integers(0, 6), seed=st.integers(0, 99))
def test_rows_with_different_settings_get_the_tokens_of_the_cpu(rows, top_n, seed):
    sequences = sequences_of(
        *(
            reporting(
                top_n if i % 2 else 0,
                request(i, prompt_ids=[1, 2, 2], output_ids=[4, 4, 40], max_new_tokens=9, **params),
            )
            for i, (params, _) in enumerate(rows)
        )
    )
    masks = [None if ids is None else mask_of(ids) for _, ids in rows]
    logits = random_rows(len(rows), seed)

    tokens = OneGpu().sample(logits, sequences, *masks)

    assert_same(tokens, on_cpu(logits, sequences, *masks))


def test_biases_masks_and_reports_go_to_their_own_rows():
    requests = [
        reporting(3, request(0, do_sample=True, temperature=4.0, seed=8)),
        reporting(2, request(1, logit_bias={5: 40.0, 6: 20.0})),
        request(2, logit_bias={7: 20.0, 90: 25.0}),
        reporting(4, request(3, do_sample=True, temperature=9.0, top_p=0.6, seed=1)),
        request(4),
    ]
    masks = [None, None, mask_of({5, 7, 8}), mask_of({10, 20, 30, 40, 96}), mask_of({50})]
    sequences, logits = sequences_of(*requests), random_rows(5)

    tokens = OneGpu().sample(logits, sequences, *masks)

    assert_same(tokens, on_cpu(logits, sequences, *masks))
    assert [token.token_id for token in tokens[1:3]] == [5, 7]
    assert all(token.token_id != token.top[0].id for token in (tokens[0], tokens[3]))


def test_greedy_rows_alone_need_nothing_but_what_the_head_found():
    one, logits = OneGpu(), random_rows(3)
    sequences = sequences_of(*(request(i) for i in range(3)))

    tokens = one.sample(logits, sequences)

    assert_same(tokens, on_cpu(logits, sequences))
    assert [call for call in one.gpu.calls if call == ("copy", "to device")] == []


def test_counts_grow_on_the_device_while_tokens_are_pending():
    one, logits = OneGpu(), random_rows(1)
    penalties = {"repetition_penalty": 1.5, "frequency_penalty": 0.7, "presence_penalty": 0.3}
    [seq] = sequences_of(request(prompt_ids=[3, 3, 5], max_new_tokens=20, **penalties))
    [twin] = sequences_of(request(prompt_ids=[3, 3, 5], max_new_tokens=20, **penalties))
    cpu = Sampler(CONFIG)

    for _ in range(12):
        [token] = one.sample(logits, [seq])
        [wanted] = cpu.sample(Scores.of(logits.clone()), [twin])
        assert_same([token], [wanted])
        twin.token_ids.append(wanted.token_id)
        # The host plans the next step before it knows the token of this one.
        if seq.token_ids[-1] == PENDING:
            seq.token_ids[-1] = twin.token_ids[-2]
        seq.token_ids.append(PENDING)

    assert len(set(twin.token_ids[3:])) > 3  # the penalties did something
    uploads = [call for call in one.gpu.calls if call == ("copy", "to device")]
    assert len(uploads) == 12 + 1  # the settings of each step, and the counts once


def test_counts_are_made_anew_when_a_row_changes_hands_or_a_token_is_taken_back():
    one, logits = OneGpu(), random_rows(2)
    requests = [request(i, prompt_ids=[3 + i, 9], repetition_penalty=3.0) for i in range(2)]
    first, second = sequences_of(*requests)
    one.sample(logits, [first, second])  # and neither token is kept

    first.row, second.row = 1, 0
    tokens = one.sample(logits, [first, second])
    first.token_ids.append(tokens[0].token_id)
    first.row = 7  # preempted, and back elsewhere
    again = one.sample(logits[:1], [first])

    expected = sequences_of(*requests)
    assert_same(tokens, on_cpu(logits, expected))
    expected[0].token_ids.append(tokens[0].token_id)
    assert_same(again, on_cpu(logits[:1], expected[:1]))


def test_a_row_that_is_not_finite_is_reported_and_disturbs_nobody():
    logits = random_rows(3)
    logits[1, 50] = math.inf
    params = {"do_sample": True, "top_p": 0.9, "repetition_penalty": 1.3}
    sequences = sequences_of(*(request(i, seed=i, **params) for i in range(3)))
    masks = [None, mask_of({1, 2, 3}), None]

    tokens = OneGpu().sample(logits, sequences, *masks)

    assert math.isnan(tokens[1].logprob)
    assert 0 <= tokens[1].token_id < VOCAB_SIZE
    rest = on_cpu(logits[[0, 2]], [sequences[0], sequences[2]])
    assert_same([tokens[0], tokens[2]], rest)


def test_a_row_that_was_ruled_out_as_a_whole_is_not_saved_by_a_penalty():
    logits = torch.full((1, VOCAB_SIZE), -math.inf)
    [seq] = sequences_of(request(repetition_penalty=1.3))

    [token] = OneGpu().sample(logits, [seq])

    assert math.isnan(token.logprob)


def test_the_end_cannot_be_chosen_before_min_tokens_pending_ones_counted():
    one, logits = OneGpu(), torch.zeros(1, VOCAB_SIZE)
    logits[0, [40, 41, 7]] = torch.tensor([9.0, 8.0, 1.0])
    [seq] = sequences_of(request(min_tokens=2, max_new_tokens=9))

    picked = []
    for _ in range(3):
        picked += one.sample(logits, [seq])
        seq.token_ids.append(PENDING)

    assert [token.token_id for token in picked] == [7, 7, 40]


def test_extreme_settings_still_give_the_tokens_of_the_cpu():
    extremes: list[dict[str, Any]] = [
        {"do_sample": True, "temperature": 5e-324},
        {"do_sample": True, "temperature": 1e300},
        {"do_sample": True, "top_p": 5e-324},
        {"do_sample": True, "top_p": 1 - 2**-53},
        {"do_sample": True, "min_p": 5e-324},
        {"do_sample": True, "top_k": 2**31 - 1},
        {"repetition_penalty": 5e-324},
        {"repetition_penalty": 1e300},
    ]
    sequences = sequences_of(*(request(i, seed=i, **each) for i, each in enumerate(extremes)))
    logits = random_rows(len(extremes))

    tokens = OneGpu().sample(logits, sequences)

    assert_same(tokens, on_cpu(logits, sequences))


def test_a_row_has_the_same_bits_alone_and_among_others():
    params = {"do_sample": True, "top_k": 30, "top_p": 0.9, "frequency_penalty": 0.5}
    logits, requests = random_rows(5), [request(i, seed=i, **params) for i in range(5)]
    together = OneGpu().sample(logits, sequences_of(*requests))

    alone = OneGpu().sample(logits[3:4], sequences_of(requests[3]))

    assert alone == together[3:4]


@pytest.mark.parametrize(
    ("params", "needs_host"),
    [
        ({"watermark": True}, True),
        ({"do_sample": True, "typical_p": 0.9}, True),
        ({"typical_p": 0.9}, False),  # greedy: nothing is cut
        ({"do_sample": True, "top_p": 0.9, "min_tokens": 3}, False),
    ],
)
def test_what_the_host_must_do_is_told(params, needs_host):
    one = OneGpu()
    [seq] = sequences_of(request(**params))

    assert one.sampler.needs_host(seq) == needs_host
    one.sample(random_rows(1), [seq])  # and launched all the same


def test_warming_up_leaves_no_trace():
    one, logits = OneGpu(), random_rows(1)
    one.staging.next_step()
    one.sampler.warm_up()
    [seq] = sequences_of(request(prompt_ids=[3], repetition_penalty=2.0))

    tokens = one.sample(logits, [seq])

    assert_same(tokens, on_cpu(logits, [seq]))


@pytest.mark.parametrize("num_blocks", [30, 6])  # six are too few for three: somebody has to wait
def test_the_gpus_loop_gives_the_tokens_of_the_cpus(num_blocks):
    requests = [
        request(0, 9, 6, do_sample=True, temperature=3.0, seed=5, repetition_penalty=1.4),
        request(1, 3, 9, frequency_penalty=1.5),
        request(2, 12, 5, do_sample=True, top_p=0.8, temperature=4.0, seed=6),
        request(3, 5, 7, watermark=True),
        request(4, 6, 8),
    ]
    config, gpu = gpu_config(max_running=3, num_blocks=num_blocks), FakeGpu()
    runner, _, staging = make_gpu_runner(gpu, config)
    device = GpuSampler(SamplerConfig.of(config), gpu, staging, max_running=config.max_running)
    host = Sampler(SamplerConfig.of(config))
    overlapped = OverlappedEngine(config, runner, MixedSampler(gpu, device, host))
    plain = Engine(config, make_plain_runner(config))
    for each in requests:
        overlapped.add(each)
        plain.add(each)

    tokens = run_to_end(overlapped)

    assert tokens == run_to_end(plain)


def test_grammars_guide_what_a_gpu_samples():
    digits = Grammar("regex", "[0-9]{3}-[a-f]{4}")
    requests = [
        guided_request(digits, 0, do_sample=True, temperature=2.0, top_p=0.9, seed=4),
        guided_request(digits, 1, repetition_penalty=1.5, min_tokens=3),
        guided_request(None, 2, do_sample=True, seed=9, max_new_tokens=6),
    ]
    config, gpu = guided_config(), FakeGpu()
    sampling = SamplerConfig.of(config)
    device = GpuSampler(sampling, gpu, Staging(gpu), max_running=config.max_running)
    sampler = MixedSampler(gpu, device, Sampler(sampling))
    engine = Engine(config, ChanceRunner(), sampler=sampler)
    engine.warm_up()
    plain = guided_engine()
    for each in requests:
        engine.add(each)
        plain.add(each)

    outputs = finish(engine)

    expected = finish(plain)
    assert {i: tokens_of(each) for i, each in outputs.items()} == {
        i: tokens_of(each) for i, each in expected.items()
    }
    assert all(re.fullmatch("[0-9]{3}-[a-f]{4}", text_of(outputs[i])) for i in range(2))
