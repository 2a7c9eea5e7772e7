"""These tests install packages, so they are collected only when they are asked for."""

from __future__ import annotations

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.option.markexpr == "clients" else True
