"""Triton's kernels in its interpreter, mended and strict: see tools/kernels/interpreter.py."""

from __future__ import annotations

import os

import pytest

# Read when a kernel is decorated, which is when a test of this folder imports it.
os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton")

from tools.kernels import interpreter

interpreter.install()


@pytest.fixture
def traffic() -> interpreter.Traffic:
    """Return the count of bytes that the test's launches move."""
    interpreter.traffic.reset()
    return interpreter.traffic
