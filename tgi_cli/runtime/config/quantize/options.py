"""What `tgi quantize` is asked to do. `table.py` holds the flags; defaults stand here alone.

`None` means that nobody said: `decide.py` says what is done then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QuantizeMethod = Literal["gptq", "awq", "awq+gptq", "int8", "rtn"]
QuantizeBackend = Literal["own", "gptqmodel", "autoawq", "autogptq"]
CheckpointFormat = Literal["gptq", "awq"]
LogLevel = Literal["trace", "debug", "info", "success", "warning", "error", "critical"]

DEFAULT_NUM_SAMPLES = 32
DEFAULT_SEQUENCE_LENGTH = 512  # tokens
DEFAULT_DAMP = 0.05  # of the mean of the Hessian's diagonal
DEFAULT_GROUP_SIZE = 128
DEFAULT_SHARD_SIZE = 5_000_000_000  # bytes
ONE_GROUP = -1  # of all inputs of a row


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """One call. Field names are the flags' names."""

    model: str | None = None
    output: str | None = None
    revision: str | None = None

    # How the weights are stored
    method: QuantizeMethod = "gptq"
    bits: int | None = None  # None: 4, or 8 of int8
    group_size: int | None = None  # ONE_GROUP, or None: DEFAULT_GROUP_SIZE, one of int8
    sym: bool | None = None  # None: as the method usually is
    desc_act: bool = False
    damp: float | None = None
    format: CheckpointFormat | None = None
    backend: QuantizeBackend = "own"
    num_shard: int = 1  # devices that the model is to be served on
    shard_size: int = DEFAULT_SHARD_SIZE  # bytes of one file

    # What it is calibrated on
    calibration: str | None = None  # a file, or the name of a text that ships with the package
    num_samples: int | None = None
    sequence_length: int | None = None
    seed: int | None = None

    # How it runs
    device: str = "cpu"
    max_memory: int | None = None  # bytes; None: what the machine has free
    resume: bool = False
    dry_run: bool = False
    push_to_hub: str | None = None  # a repository

    # What it must be worth
    evaluate: str | None = None
    against: str | None = None
    evaluation: bool = True
    evaluation_samples: int = 16  # windows of the held-out text
    max_kl: float | None = None
    max_ppl_increase: float | None = None  # a share

    # What is shown
    json_output: bool = False
    log_level: LogLevel = "info"
    trust_remote_code: bool = False
