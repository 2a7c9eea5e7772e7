"""All layers of a decoder for one step in one call: `cpu.c`, only where the library was built.

    for each layer:  h += out(attention(rotate(qkv(norm(h)))))
                     h += down(silu(gate(norm(h))) * up(norm(h)))

h: [T, hidden] fp32, the residual stream. The pieces are the operations of the neighbouring
folders, in the order in which `runtime/models/blocks.py` calls them one by one, with the same bits;
what is saved is the way through Python and ten parallel regions a layer, which at one sequence
cost more than the arithmetic. Layers: Touvron et al., Llama 2, arXiv:2307.09288.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tgi_cli.kernels import native
from tgi_cli.kernels.linear import PackedLinear
from tgi_cli.kernels.linear.packing import Descriptor, NativeWeight

if TYPE_CHECKING:
    from torch import Tensor

    from tgi_cli.kernels.paged_attention.native import NativeCache, NativePlan

_pointer, _int, _float = native.Pointer, native.Int, native.Float


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights."""

    qkv: PackedLinear
    out: PackedLinear
    gate_up: PackedLinear  # gated
    down: PackedLinear
    input_norm: Tensor  # [hidden] fp32
    feed_forward_norm: Tensor  # [hidden] fp32
    q_norm: Tensor | None  # [head_dim] fp32
    k_norm: Tensor | None
    is_windowed: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    sliding_window: int | None


@dataclass(frozen=True, slots=True)
class StepInput:
    """What a step needs besides embeddings; T tokens, N wanted rows."""

    cos: Tensor  # [T, 1, D] fp32
    signed_sin: Tensor  # [T, 1, D] fp32
    slot_mapping: Tensor  # [T] int64
    plan: NativePlan
    wanted: Tensor  # [N] int64, of T


_PRODUCTS = ("qkv", "out", "gate_up", "down")


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in _PRODUCTS),
        *((f"{name}_order", _pointer) for name in _PRODUCTS),
        *((name, _pointer) for name in ("input_norm", "feed_forward_norm", "q_norm", "k_norm")),
        ("cache", _pointer),
        ("is_windowed", _int),
    )


class _Decoder(ctypes.Structure):
    _fields_ = (
        ("layers", _pointer),
        ("final_norm", _pointer),
        *((name, _int) for name in ("num_layers", "hidden", "num_heads", "num_kv_heads")),
        *((name, _int) for name in ("head_dim", "sliding_window")),
        ("eps", _float),
        ("scale", _float),
    )


_BUFFERS = ("normed", "qkv", "attended", "gated", "ordered")


class _Workspace(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in _BUFFERS),
        *((f"{name}_stride", _int) for name in _BUFFERS),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in ("residual", "hidden", "cos", "signed_sin", "slots")),
        *((name, _pointer) for name in ("block_tables", "spans", "wanted")),
        *((name, _int) for name in ("num_tokens", "num_spans", "table_stride", "num_wanted")),
    )


def _products_of(layer: Layer) -> tuple[PackedLinear, ...]:
    return layer.qkv, layer.out, layer.gate_up, layer.down


def can_run(layers: list[Layer]) -> bool:
    """Whether every product of the layers is packed for the native library."""
    return native.is_available() and all(
        isinstance(product.weight, NativeWeight)
        for layer in layers
        for product in _products_of(layer)
    )


class Decoder:
    """The layers as the native library sees them. Keeps weights and caches alive."""

    def __init__(
        self, layers: list[Layer], final_norm: Tensor, sizes: Sizes, caches: list[NativeCache]
    ) -> None:
        self._keep = (layers, final_norm, caches)
        self._sizes = sizes
        self._has_orders = any(
            product.input_order is not None for layer in layers for product in _products_of(layer)
        )
        self._layers = (_Layer * len(layers))(
            *(_native_layer(layer, cache) for layer, cache in zip(layers, caches, strict=True))
        )
        self._decoder = _Decoder(
            layers=ctypes.addressof(self._layers),
            final_norm=final_norm.data_ptr(),
            num_layers=len(layers),
            hidden=sizes.hidden,
            num_heads=sizes.num_heads,
            num_kv_heads=sizes.num_kv_heads,
            head_dim=sizes.head_dim,
            sliding_window=sizes.sliding_window or 0,
            eps=sizes.rms_norm_eps,
            scale=sizes.head_dim**-0.5,
        )
        self._workspace = _Workspace()
        self._buffers: list[Tensor] = []
        self._num_rows = 0

    def run(self, residual: Tensor, step: StepInput) -> Tensor:
        """Return the normalised rows [N, hidden] that `step` wants.

        `residual` [T, hidden] fp32 holds the embeddings and is used up.
        """
        if residual.shape[0] > self._num_rows:
            self._make_room(residual.shape[0])
        hidden = torch.empty(len(step.wanted), self._sizes.hidden)
        tables, spans = step.plan.block_tables, step.plan.spans
        native_step = _Step(
            residual=residual.data_ptr(),
            hidden=hidden.data_ptr(),
            cos=step.cos.data_ptr(),
            signed_sin=step.signed_sin.data_ptr(),
            slots=step.slot_mapping.data_ptr(),
            block_tables=tables.ctypes.data,
            spans=spans.ctypes.data,
            wanted=step.wanted.data_ptr(),
            num_tokens=residual.shape[0],
            num_spans=len(spans),
            table_stride=tables.shape[1],
            num_wanted=len(step.wanted),
        )
        native.function("tgi_decoder_run", _pointer, _pointer, _pointer)(
            ctypes.byref(self._decoder), ctypes.byref(self._workspace), ctypes.byref(native_step)
        )
        return hidden

    def _make_room(self, num_rows: int) -> None:
        sizes = self._sizes
        attended = sizes.num_heads * sizes.head_dim
        widths = {
            "normed": sizes.hidden,
            "qkv": attended + 2 * sizes.num_kv_heads * sizes.head_dim,
            "attended": attended,
            "gated": sizes.intermediate,
        }
        if self._has_orders:
            widths["ordered"] = max(sizes.hidden, attended, sizes.intermediate)
        self._buffers = []
        for name, width in widths.items():
            stride = _cache_friendly(width)
            self._buffers.append(torch.empty(num_rows, stride))
            setattr(self._workspace, name, self._buffers[-1].data_ptr())
            setattr(self._workspace, f"{name}_stride", stride)
        self._num_rows = num_rows


def _cache_friendly(width: int) -> int:
    """Return a stride in floats at which rows don't all fall into the same sets of a cache."""
    stride = -(-width // 16) * 16
    return stride + 16 if stride % 256 == 0 else stride


def _native_layer(layer: Layer, cache: NativeCache) -> _Layer:
    def address(product: PackedLinear) -> int:
        assert isinstance(product.weight, NativeWeight)
        descriptor: Descriptor = product.weight.descriptor
        return ctypes.addressof(descriptor)

    def data(tensor: Tensor | None) -> int | None:
        return None if tensor is None else tensor.data_ptr()

    fields: dict[str, Any] = {
        **{name: address(getattr(layer, name)) for name in _PRODUCTS},
        **{f"{name}_order": data(getattr(layer, name).input_order) for name in _PRODUCTS},
        "input_norm": data(layer.input_norm),
        "feed_forward_norm": data(layer.feed_forward_norm),
        "q_norm": data(layer.q_norm),
        "k_norm": data(layer.k_norm),
        "cache": ctypes.addressof(cache.descriptor),
        "is_windowed": layer.is_windowed,
    }
    return _Layer(**fields)
