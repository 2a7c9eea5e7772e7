"""Where a model is computed: on the GPU if nothing is in the way, else on the CPU; and why.

An obstacle is a clause that names what is missing. Asked for by --device cuda, it ends the start;
otherwise it is told and the CPU computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.facts import GpuStack
from tgi_cli.runtime.config.model_config import Dtype, KvCacheDtype, ModelConfig
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.start_notes import show_bytes

MAX_HEAD_DIM = 256  # of the attention kernel
FP8: tuple[KvCacheDtype, ...] = ("fp8_e4m3fn", "fp8_e5m2")
_AMD = ("gfx942", "gfx950")

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Device:
    """What was chosen, and the reason for the start table."""

    kind: DeviceKind
    reason: str
    warning: str | None = None  # a GPU is there and isn't used


def choose_device(options: ServeOptions, gpus: GpuStack, obstacles: Iterable[str]) -> Device:
    """Decide; `obstacles` are the model's own, looked at if the machine has none.

    Raises:
        ArgumentError: a GPU was asked for and can't be had.
    """
    if options.device == "cpu":
        return Device("cpu", "asked for")
    obstacle = machine_obstacle(gpus) or next(iter(obstacles), None)
    if obstacle is None:
        assert gpus.gpu is not None, gpus
        return Device("cuda", f"{gpus.gpu.name}, {show_bytes(gpus.gpu.total_bytes)}")
    if options.device == "cuda":
        raise refusal(obstacle)
    if gpus.maker is None:
        return Device("cpu", obstacle)
    return Device("cpu", obstacle, f"The GPU isn't used, the CPU computes instead: {obstacle}")


def refusal(obstacle: str) -> ArgumentError:
    return ArgumentError(
        f"`device` is cuda, but {obstacle}",
        hint="Leave --device out, or give --device cpu.",
    )


def machine_obstacle(gpus: GpuStack) -> str | None:
    """Return what is missing between the machine's cards and a kernel that runs."""
    maker, driver = gpus.maker, gpus.driver
    if maker is None:
        return "this machine shows no GPU"
    if driver.error:
        return f"{maker}'s driver can't be used: {driver.error}"
    if gpus.gpu is None:
        return f"{maker}'s driver lets this process use no GPU (see CUDA_VISIBLE_DEVICES)"
    if not _is_supported(gpus.gpu.arch):
        return (
            f"{gpus.gpu.name} is {gpus.gpu.arch}; the kernels need NVIDIA's compute capability 8.0 "
            "(sm_80) or more, or AMD's gfx942 or gfx950"
        )
    return _library_obstacle(gpus)


def _library_obstacle(gpus: GpuStack) -> str | None:
    built_for = gpus.torch_cuda if gpus.maker == "NVIDIA" else gpus.torch_rocm
    if built_for is None:
        platform = "CUDA" if gpus.maker == "NVIDIA" else "ROCm"
        return f"the installed torch is built without {platform}"
    major, minor = gpus.driver.cuda_version
    # Within a major version any driver runs what any toolkit built.
    if gpus.maker == "NVIDIA" and major < int(built_for.partition(".")[0]):
        return (
            f"NVIDIA's driver is too old: it can do CUDA {major}.{minor}, and the installed torch "
            f"needs CUDA {built_for}"
        )
    if not gpus.has_triton:
        return "triton isn't installed (pip install 'tgi-cli[gpu]')"
    if not gpus.has_compiler:
        return "triton needs a C compiler, and there is no gcc, clang or $CC"
    if not gpus.has_python_headers:
        return "triton needs Python's C headers, and Python.h isn't there (package python3-dev)"
    return None


def model_obstacles(options: ServeOptions, config: ModelConfig) -> Iterable[str]:
    """Yield what the kernels can't do of this model and these options."""
    if config.head_dim > MAX_HEAD_DIM or config.head_dim % 16:
        yield (
            f"the model's heads have {config.head_dim} features; the attention kernel takes "
            f"multiples of 16 up to {MAX_HEAD_DIM}"
        )
    if options.dtype == "float32":
        yield "`dtype` is float32; the kernels take float16 and bfloat16"
    if options.kv_cache_dtype not in (None, gpu_dtype(options, config), *FP8):
        yield (
            f"`kv_cache_dtype` is {options.kv_cache_dtype}; the kernels take the model's "
            f"{gpu_dtype(options, config)} and fp8"
        )
    if options.disable_custom_kernels:
        yield "`disable_custom_kernels` is set, and on a GPU no other kernels keep a row's bits"


def gpu_dtype(options: ServeOptions, config: ModelConfig) -> Dtype:
    """Return what weights are rounded to there: TGI's float16 where a checkpoint is wider."""
    own = config.checkpoint_dtype
    return options.dtype or ("float16" if own == "float32" else own)


def _is_supported(arch: str) -> bool:
    number = arch.removeprefix("sm_")
    return arch in _AMD or (number != arch and number.isdigit() and int(number) >= 80)
