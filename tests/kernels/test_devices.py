from __future__ import annotations

from types import SimpleNamespace

import pytest

from tgi_cli.kernels import devices


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("sm_75", None),
        ("sm_80", "sm_80"),
        ("sm_89", "sm_80"),
        ("sm_90", "sm_90"),
        ("sm_100", "sm_90"),
        ("sm_120", "sm_80"),
        ("gfx942", "gfx942"),
        ("gfx950", "gfx942"),
        ("gfx1100", None),
        ("", None),
    ],
)
def test_tiles_are_those_of_the_nearest_older_architecture_that_is_alike(
    arch: str, expected: str | None
) -> None:
    assert devices.family(arch) == expected


@pytest.mark.parametrize(
    ("backend", "arch", "expected"),
    [("cuda", 86, "sm_80"), ("cuda", 90, "sm_90"), ("hip", "gfx942:sramecc+:xnack-", "gfx942")],
)
def test_the_target_is_the_current_devices(
    backend: str, arch: int | str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("triton")
    driver = SimpleNamespace(get_current_target=lambda: SimpleNamespace(backend=backend, arch=arch))
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    monkeypatch.setattr(triton.runtime, "driver", SimpleNamespace(active=driver))

    assert devices.target() == expected


def test_the_interpreter_takes_the_oldest_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)

    assert devices.target() == "sm_80"
