"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# Spinning OpenMP threads collapse when a neighbour keeps a core busy, such as a server that a test
# has started. libgomp reads this once, when torch loads it, which is after this file.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# Triton reads this when it is imported and for each kernel that it is given. Here kernels are
# interpreted; `tests/gpu`, on a machine with a GPU, is run with 0.
os.environ.setdefault("TRITON_INTERPRET", "1")

# A shared machine is slow now and then; that is no failure of the code.
settings.register_profile("tgi", deadline=None)
settings.load_profile("tgi")
