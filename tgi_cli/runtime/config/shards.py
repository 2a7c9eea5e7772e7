"""How many shards a model is split into: what was asked for, else one for each visible device.

Pure functions; the number of devices that the driver shows comes from outside.
Spec: launcher-options.md section 4.1.
"""

from __future__ import annotations

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.parsers import names

_FROM_DRIVER = ("all", "void")  # values of NVIDIA_VISIBLE_DEVICES


def num_visible_devices(options: ServeOptions, num_driver_devices: int) -> int:
    """Return how many devices the environment leaves visible."""
    if options.cuda_visible_devices is not None:
        return _num_usable(options.cuda_visible_devices)
    nvidia = options.nvidia_visible_devices
    if nvidia is not None:
        return num_driver_devices if nvidia in _FROM_DRIVER else _num_usable(nvidia)
    if options.ze_affinity_mask is not None:
        return _num_usable(options.ze_affinity_mask)
    return num_driver_devices


def num_shards(sharded: bool | None, num_shard: int | None, num_devices: int) -> int:
    """Return the degree of tensor parallelism, at least 1.

    Raises:
        ArgumentError: what was asked for contradicts itself or the devices.
    """
    if num_shard is not None and num_shard < 1:
        raise ArgumentError("`num_shard` cannot be < 1")
    if sharded:
        if num_shard is None and num_devices <= 1:
            raise ArgumentError(f"`sharded` is true but only found {num_devices} CUDA devices")
        if num_shard == 1:
            raise ArgumentError("`sharded` is true but `num_shard` <= 1")
    if num_shard is not None:
        return num_shard
    return 1 if sharded is False else max(1, num_devices)


def _num_usable(devices: str) -> int:
    """Count a comma list of devices; CUDA sees none from the first -1 on, nor from "none"."""
    listed = names(devices)
    for index, device in enumerate(listed):
        if device in ("-1", "none", "NoDevFiles"):
            return index
    return len(listed)
