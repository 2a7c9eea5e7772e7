"""The demo model against transformers in fp32 on the same dequantised weights."""

from __future__ import annotations

import asyncio

import pytest
import torch

from tests.builders.model import engine_config, generate, make_runner
from tests.builders.reference import reference_model
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.text.chat_template import ChatTemplate
from tgi_cli.runtime.text.tokenizer import Tokenizer
from tgi_cli.runtime.text.watermark import detect
from tgi_cli.runtime.types import SamplingParams

NUM_NEW_TOKENS = 64
TEXTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea, there lived",
    "The three laws of thermodynamics are:\n1.",
    "def fibonacci(n):\n    ",
    "#include <stdio.h>\n\nint main(void) {\n",
    "SELECT name, COUNT(*) FROM users WHERE",
    "import numpy as np\n\ndef softmax(x):\n",
    "昔々、あるところに",
    "人工智能的未来",
    "안녕하세요, 오늘은",
    "🦜 is a parrot and 🐙 is an",
    "Emoji test: 😀😃😄",
    "The following table lists the planets in order of distance: | Planet |" * 4,
]
CHATS = ["What is gravity?", "Write a haiku about rain.", "Translate 'good morning' to French."]


@pytest.fixture(scope="module")
def located() -> LocatedModel:
    return locate_model("demo")


@pytest.fixture(scope="module")
def engine(located: LocatedModel) -> Engine:
    config = engine_config(located)
    return Engine(config, make_runner(config))


async def render_chats(located: LocatedModel) -> list[str]:
    template = ChatTemplate(located.text)
    try:
        return [(await template.render([{"role": "user", "content": text}])).text for text in CHATS]
    finally:
        await template.close()


@pytest.fixture(scope="module")
def prompts(located: LocatedModel) -> list[list[int]]:
    tokenizer = Tokenizer(located.text)
    chats = asyncio.run(render_chats(located))
    return [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS + chats]


@pytest.mark.timeout(600)
def test_greedy_tokens_equal_transformers_alone_and_together(located, engine, prompts):
    together = generate(engine, prompts, NUM_NEW_TOKENS)
    alone = [generate(engine, [prompt], NUM_NEW_TOKENS)[0] for prompt in prompts]

    # If each token is the reference's arg-max after those before it, then its greedy generation is
    # these tokens; and one forward pass tells them all.
    reference = reference_model(located)
    for prompt, output in zip(prompts, together, strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + output])).logits[0, len(prompt) - 1 : -1]
        assert output == logits.argmax(dim=-1).tolist()
        assert len(output) == NUM_NEW_TOKENS or output[-1] in located.eos_token_ids
    assert alone == together


@pytest.mark.timeout(600)
def test_prompt_scores_equal_transformers_log_softmax(located, prompts):
    config = engine_config(located, kv_cache_dtype="float32")  # as transformers': not rounded
    engine = Engine(config, make_runner(config))
    requests = [
        NewRequest(i, ids, 1, SamplingParams(), scores_prompt=True, prompt_top_n=2)
        for i, ids in enumerate(prompts)
    ]
    for request in requests:
        engine.add(request)
    scores = {}
    while engine.has_work:
        scores |= {output.request_id: output.prompt_scores for output in engine.step().outputs}

    reference = reference_model(located)
    for request in requests:
        with torch.no_grad():
            logits = reference(torch.tensor([request.prompt_ids])).logits[0, :-1]
        expected = torch.log_softmax(logits.double(), dim=-1)
        chosen = expected.gather(-1, torch.tensor(request.prompt_ids[1:])[:, None])[:, 0]
        mine = scores[request.request_id]
        assert [score.logprob for score in mine] == pytest.approx(chosen.tolist(), 1e-3, 1e-3)
        best = [[entry.logprob for entry in score.top[:2]] for score in mine]
        assert best == [
            pytest.approx(values, 1e-3, 1e-3) for values in expected.topk(2).values.tolist()
        ]


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(engine, prompts):
    params = {"do_sample": True, "temperature": 0.9, "top_p": 0.95}

    first = generate(engine, prompts[:4], 24, seed=11, **params)
    second = generate(engine, prompts[:4], 24, seed=11, **params)
    other = generate(engine, prompts[:4], 24, seed=12, **params)

    assert first == second
    assert first != other


def test_watermarked_text_is_detected_and_plain_text_is_not(engine, prompts):
    params = {"do_sample": True, "temperature": 1.2, "seed": 3}

    marked = generate(engine, prompts[:3], 90, watermark=True, **params)
    plain = generate(engine, prompts[:3], 90, **params)

    for prompt, ids in zip(prompts, marked, strict=False):
        assert detect(prompt[-1:] + ids).p_value < 1e-4
    for prompt, ids in zip(prompts, plain, strict=False):
        assert detect(prompt[-1:] + ids).p_value > 1e-3
