"""Each fast operation against its slow twin, on sizes that are multiples of nothing."""

from __future__ import annotations

import pytest
import torch

from tgi_cli.kernels import native, rms_norm, rotary
from tgi_cli.kernels.rms_norm import reference as norm_reference
from tgi_cli.kernels.rotary import reference as rotary_reference


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
