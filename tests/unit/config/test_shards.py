from __future__ import annotations

import pytest

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.shards import num_shards, num_visible_devices


@pytest.mark.parametrize(
    ("sharded", "num_shard", "num_devices", "expected"),
    [
        (None, None, 3, 3),
        (None, None, 0, 1),
        (None, 5, 3, 5),
        (False, None, 3, 1),
        (False, 5, 3, 5),
        (True, None, 3, 3),
        (True, 5, 0, 5),
    ],
)
def test_the_number_of_shards_is_asked_for_or_counted(
    sharded: bool | None, num_shard: int | None, num_devices: int, expected: int
) -> None:
    assert num_shards(sharded, num_shard, num_devices) == expected


@pytest.mark.parametrize(
    ("sharded", "num_shard", "num_devices", "text"),
    [
        (None, 0, 3, "`num_shard` cannot be < 1"),
        (True, 1, 3, "`sharded` is true but `num_shard` <= 1"),
        (True, None, 1, "`sharded` is true but only found 1 CUDA devices"),
        (True, None, 0, "`sharded` is true but only found 0 CUDA devices"),
    ],
)
def test_contradictions_are_refused(
    sharded: bool | None, num_shard: int | None, num_devices: int, text: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        num_shards(sharded, num_shard, num_devices)

    assert caught.value.message == text


@pytest.mark.parametrize(
    ("variables", "num_driver_devices", "expected"),
    [
        ({}, 0, 0),
        ({}, 4, 4),
        ({"cuda_visible_devices": "0,2"}, 4, 2),
        ({"cuda_visible_devices": "GPU-3a, GPU-4b"}, 4, 2),
        ({"cuda_visible_devices": "1,-1,2"}, 4, 1),  # CUDA stops at what isn't a device
        ({"cuda_visible_devices": "-1"}, 4, 0),
        ({"cuda_visible_devices": "0", "nvidia_visible_devices": "all"}, 4, 1),
        ({"nvidia_visible_devices": "all"}, 4, 4),
        ({"nvidia_visible_devices": "void"}, 4, 4),
        ({"nvidia_visible_devices": "none"}, 4, 0),
        ({"nvidia_visible_devices": "0,1,2"}, 4, 3),
        ({"nvidia_visible_devices": "0", "ze_affinity_mask": "0,1"}, 4, 1),
        ({"ze_affinity_mask": "0,1"}, 0, 2),
    ],
)
def test_devices_are_counted_from_the_first_variable_that_is_set(
    variables: dict[str, str], num_driver_devices: int, expected: int
) -> None:
    options = ServeOptions(**variables)  # type: ignore[arg-type]

    assert num_visible_devices(options, num_driver_devices) == expected
