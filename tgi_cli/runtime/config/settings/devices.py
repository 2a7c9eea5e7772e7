"""Options about what computes, and on how many devices."""

from __future__ import annotations

from typing import get_args

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.options import Attention
from tgi_cli.runtime.config.settings.setting import (
    COMPATIBILITY,
    DEVICES,
    Setting,
    choice,
    count,
    switch,
    text,
)

_NO_SOCKETS = "a model runs in one shard, whose only channel it inherits: nothing is opened"

DEVICE_SETTINGS: tuple[Setting, ...] = (
    choice(
        "device",
        DEVICES,
        ("auto", "cpu", "cuda"),
        "Where the model is computed; auto takes a GPU where the kernels can use it.",
    ),
    choice(
        "attention",
        DEVICES,
        get_args(Attention),
        "Attention kernels on a GPU; paged and triton are ours, the others need their package.",
        note="paged",
    ),
    switch("sharded", DEVICES, "Split the model over devices; this version can't."),
    count("num_shard", DEVICES, "Devices to split the model over; this version takes 1.", note="1"),
    Setting(
        name="cpu_threads",
        group=DEVICES,
        parse=parsers.count,
        metavar="N",
        help="Threads that compute.",
        default_note="the cores that the process may use",
        fallback_variables=("OMP_NUM_THREADS",),
    ),
    switch(
        "verify_determinism",
        DEVICES,
        "Compute requests alone, together and in chunks before the port opens; other bits end it.",
    ),
    choice(
        "engine",
        DEVICES,
        ("native", "fake"),
        "fake answers at once with made-up tokens, to test clients without computing.",
    ),
)

SHARD_SETTINGS: tuple[Setting, ...] = (
    text(
        "shard_uds_path",
        COMPATIBILITY,
        "Path of the shards' sockets in TGI.",
        metavar="PATH",
        no_effect=_NO_SOCKETS,
    ),
    text(
        "master_shard_uds_path",
        COMPATIBILITY,
        "Path of the first shard's socket in TGI's router.",
        metavar="PATH",
        no_effect=_NO_SOCKETS,
    ),
    text(
        "master_addr",
        COMPATIBILITY,
        "Address at which shards meet.",
        metavar="HOST",
        no_effect=_NO_SOCKETS,
    ),
    Setting(
        name="master_port",
        group=COMPATIBILITY,
        parse=parsers.port,
        metavar="N",
        help="Port at which shards meet.",
        no_effect=_NO_SOCKETS,
    ),
)
