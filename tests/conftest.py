"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# A shared machine is slow now and then; that is no failure of the code.
settings.register_profile("tgi", deadline=None)
settings.load_profile("tgi")
