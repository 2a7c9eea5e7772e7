"""What the tests of CPU kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tgi_cli.kernels import native

SETS = {0: "portable", 1: "avx2", 2: "avx512"}


@pytest.fixture(params=SETS, ids=SETS.values())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run with each set of vectors that this machine has; without the library, once."""
    if not native.is_available():
        if request.param:
            pytest.skip("no compiler at install")
        yield 0
        return
    before = native.instruction_set()
    chosen = native.choose_instruction_set(request.param)
    if request.param and chosen == native.choose_instruction_set(request.param - 1):
        native.choose_instruction_set(max(SETS))
        pytest.skip("this machine hasn't got it")
    native.choose_instruction_set(request.param)
    yield request.param
    assert native.choose_instruction_set(max(SETS)) == before
