"""What deciding starts from: the facts of a model and of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tgi_cli.runtime.config.model_config import ModelConfig, TextAssets, WeightsSource

Maker = Literal["NVIDIA", "AMD"]


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
class GpuFacts:
    """A GPU as its driver describes it."""

    name: str  # "NVIDIA H100 80GB HBM3"
    arch: str  # "sm_90", "gfx942"
    total_bytes: int


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What a driver says in this process's environment."""

    gpus: tuple[GpuFacts, ...] = ()  # that it lets us use
    cuda_version: tuple[int, int] = (0, 0)  # the newest that it can do; AMD's has none
    error: str = ""  # why it can't be asked


@dataclass(frozen=True, slots=True)
class GpuStack:
    """How far the way to a GPU is there: cards, the driver, the libraries."""

    maker: Maker | None = None  # of the cards in the machine; None: there are none
    driver: DriverFacts = DriverFacts()
    torch_cuda: str | None = None  # the version that torch was built for, "12.8"
    torch_rocm: str | None = None
    has_triton: bool = False
    has_compiler: bool = False  # of C, with which Triton builds its way to the driver
    has_python_headers: bool = False  # for that
    has_flash_attn: bool = False
    has_flashinfer: bool = False

    @property
    def gpu(self) -> GpuFacts | None:
        """The one that would compute."""
        return self.driver.gpus[0] if self.driver.gpus else None


@dataclass(frozen=True, slots=True)
class HardwareFacts:
    """What this process may use of the machine."""

    num_cores: int
    available_memory_bytes: int
    gpus: GpuStack = GpuStack()
    has_native_kernels: bool = True
