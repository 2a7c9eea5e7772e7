from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.download import Downloads, downloading


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[Downloads]:
    with downloading(tmp_path) as found:
        yield found
