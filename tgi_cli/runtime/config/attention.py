"""Which attention kernels run on a GPU. Spec: launcher-options.md section 4.4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.facts import GpuStack
from tgi_cli.runtime.config.memory import BLOCK_SIZE
from tgi_cli.runtime.config.options import Attention
from tgi_cli.runtime.config.resolved import AttentionName


@dataclass(frozen=True, slots=True)
class _Library:
    """A package that brings kernels, for who asks for them."""

    name: AttentionName
    package: str
    is_installed: Callable[[GpuStack], bool]


BLOCK_SIZES: dict[AttentionName, int] = {  # tokens
    "paged": BLOCK_SIZE,
    "flash-attn": 256,  # it reads no smaller ones
    "flashinfer": BLOCK_SIZE,
}
_FLASH_ATTN = _Library("flash-attn", "flash-attn", lambda gpus: gpus.has_flash_attn)
_LIBRARIES: dict[Attention, _Library] = {
    "flashdecoding": _FLASH_ATTN,  # TGI's name for it
    "flash-attn": _FLASH_ATTN,
    "flashinfer": _Library("flashinfer", "flashinfer-python", lambda gpus: gpus.has_flashinfer),
}


def choose_attention(asked: Attention | None, gpus: GpuStack) -> AttentionName:
    """Return what computes attention on a GPU.

    Raises:
        ArgumentError: it can't run here.
    """
    if asked in (None, "paged", "triton"):
        return "paged"
    library = _LIBRARIES.get(asked)
    if library is None:
        raise ArgumentError(
            f"`attention` is {asked}, whose kernels are for Intel's devices",
            hint="Leave --attention out.",
        )
    if not library.is_installed(gpus):
        raise ArgumentError(
            f"`attention` is {asked}, but the package {library.package} isn't installed",
            hint="Install it, or leave --attention out: our own kernels are used then.",
        )
    return library.name
