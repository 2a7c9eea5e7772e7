"""Triton's kernels in its interpreter, mended and strict: see tools/kernels/interpreter.py."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from tools.kernels import interpreter

interpreter.install()


@pytest.fixture
def traffic() -> interpreter.Traffic:
    """Return the count of bytes that the test's launches move."""
    interpreter.traffic.reset()
    return interpreter.traffic
