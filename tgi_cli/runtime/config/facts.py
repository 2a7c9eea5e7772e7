"""What deciding starts from: the facts of a model and of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tgi_cli.runtime.config.model_config import ModelConfig, TextAssets, WeightsSource


class ModelFacts(Protocol):
    """What must be known of a model; `hub.locate.LocatedModel` is one."""

    @property
    def model_id(self) -> str: ...
    @property
    def sha(self) -> str | None: ...
    @property
    def pipeline_tag(self) -> str | None: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def weights(self) -> WeightsSource: ...
    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...
    @property
    def text(self) -> TextAssets: ...


@dataclass(frozen=True, slots=True)
class HardwareFacts:
    """What this process may use of the machine."""

    num_cores: int
    available_memory_bytes: int
    num_gpus: int = 0  # that the driver shows
    gpu_name: str | None = None  # of the first of them
    has_native_kernels: bool = True
