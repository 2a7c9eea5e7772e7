"""Each fast operation against its slow twin, on sizes that are multiples of nothing."""

from __future__ import annotations

import pytest
import torch

from tgi_cli.kernels import best_token, linear, native, rms_norm, rotary
from tgi_cli.kernels.rms_norm import reference as norm_reference
from tgi_cli.kernels.rotary import reference as rotary_reference

pytestmark = pytest.mark.usefixtures("instruction_set")


@pytest.fixture(params=["native", "torch"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the native library, and as on a machine that couldn't build it."""
    if request.param == "torch":
        monkeypatch.setattr(native, "is_available", lambda: False)
    elif not native.is_available():
        pytest.skip("no compiler at install")


SIZES = [(1, 7), (5, 64), (33, 577)]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize(("num_rows", "hidden"), SIZES)
def test_rms_norm_matches_reference(num_rows, hidden):
    x, weight = randn(num_rows, hidden) * 3, randn(hidden)

    y = rms_norm.rms_norm(x, weight, 1e-5)

    torch.testing.assert_close(y, norm_reference.rms_norm(x, weight, 1e-5))


@pytest.mark.parametrize(("num_rows", "hidden"), SIZES)
def test_add_rms_norm_matches_reference_and_updates_the_residual(num_rows, hidden):
    x, weight, residual = randn(num_rows, hidden), randn(hidden), randn(num_rows, hidden, seed=9)
    expected_residual = residual.clone()
    expected = norm_reference.add_rms_norm(x, expected_residual, weight, 1e-5)

    y = rms_norm.add_rms_norm(x, residual, weight, 1e-5)

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(residual, expected_residual, rtol=0, atol=0)


@pytest.mark.parametrize("num_tokens", [1, 7, 130])
def test_rotation_in_place_matches_reference_and_leaves_the_neighbours(num_tokens):
    qkv, angles = randn(num_tokens, 5, 12), randn(num_tokens, 1, 6)
    cos, sin = angles.cos(), angles.sin()
    original = qkv.clone()

    rotary.rotate_(qkv[:, 1:4], torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))

    torch.testing.assert_close(qkv[:, 1:4], rotary_reference.rotate(original[:, 1:4], cos, sin))
    torch.testing.assert_close(qkv[:, [0, 4]], original[:, [0, 4]], rtol=0, atol=0)


@pytest.mark.parametrize("num_columns", [1, 8, 13, 49_153])
def test_best_token_is_the_first_of_the_highest_with_its_log_probability(num_columns):
    logits = randn(7, num_columns) * 5
    logits[3] = 1.0  # all tie
    logits[4, num_columns // 2 :] = float("-inf")
    logits[4, 0] = 2.0

    ids, logprobs = best_token.best_token(logits)

    exact = torch.log_softmax(logits.double(), -1)
    assert int(ids[3]) == 0
    torch.testing.assert_close(logits.gather(1, ids[:, None])[:, 0], logits.amax(-1))
    expected = exact.gather(1, ids[:, None])[:, 0].float()
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 5, 12])
def test_best_token_of_a_row_that_is_not_finite_has_no_log_probability(bad, place):
    logits = randn(3, 13)
    logits[1, place] = bad

    _, logprobs = best_token.best_token(logits)

    assert logprobs.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("num_rows", [1, 2, 7, 130])
@pytest.mark.parametrize("num_columns", [31, 577])
@pytest.mark.parametrize("kind", ["fp16", "codes", "permuted"])
def test_a_head_finds_the_best_token_of_the_scores_that_it_makes(kind, num_columns, num_rows):
    x, weight = randn(num_rows, 64), randn(num_columns, 64).half()
    weight[num_columns // 2] = weight[num_columns - 1]  # ties
    if kind != "fp16":
        codes = (weight.float() * 20).round().clamp(-127, 127).to(torch.int8)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        weight = linear.Codes(
            codes, torch.full((num_columns, 1), 0.05), None, 64, order if kind[0] == "p" else None
        )
    head = linear.pack(weight)
    scores, separate = torch.full((2, num_rows, num_columns), float("nan")).unbind()

    ids, logprobs = best_token.multiply(x, head, out=scores)

    linear.multiply(x, head, out=separate)
    expected_ids, expected_logprobs = best_token.best_token(separate)
    assert torch.equal(scores, separate)
    assert torch.equal(ids, expected_ids)
    assert torch.equal(logprobs, expected_logprobs)
