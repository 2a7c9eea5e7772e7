"""A decoder layer of the Llama family in plain torch, over whole windows of calibration text.

It exists beside the served model because calibration wants what serving doesn't: the inputs of
each projection, fp32 throughout, weights that change between two runs, and no KV cache. Parity
with the served model is tested.

S windows of L tokens, H query heads, Hkv key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.layers.rope import RotaryTable
from tgi_cli.runtime.quantize.solver import LayerTensors


@dataclass(frozen=True, slots=True)
class Heads:
    num_heads: int
    num_kv_heads: int
    head_dim: int


class LayerForward:
    """The parts of layer `index`, each a function of the layer's tensors and an input.

    Windows are of `length` tokens. It comes in parts so that a solver can stop before any
    projection, or run it with other weights.
    """

    def __init__(
        self, config: ModelConfig, length: int, index: int = 0, device: torch.device | None = None
    ) -> None:
        self.index = index
        self.heads = Heads(config.num_heads, config.num_kv_heads, config.head_dim)
        self._config = config
        table = RotaryTable(config.head_dim, length, config.rope_theta, config.rope_scaling)
        cos, signed_sin = table.at(torch.arange(length))
        self._cos = cos.transpose(0, 1).to(device)  # [1, L, D]
        self._signed_sin = signed_sin.transpose(0, 1).to(device)
        self._mask = _mask(config, length, index).to(device)

    def attention_input(self, layer: LayerTensors, x: Tensor) -> Tensor:
        """Return what q, k and v read, [S, L, hidden]."""
        return self._norm(x, layer["input_layernorm.weight"])

    def attend(self, layer: LayerTensors, normed: Tensor) -> Tensor:
        """Return what the output projection reads, [S, L, H * D]."""
        config = self._config
        q = self._heads(project(layer, "self_attn.q_proj", normed), config.num_heads)
        k = self._heads(project(layer, "self_attn.k_proj", normed), config.num_kv_heads)
        v = self._heads(project(layer, "self_attn.v_proj", normed), config.num_kv_heads)
        if config.qk_norm:
            q = self._norm(q, layer["self_attn.q_norm.weight"])
            k = self._norm(k, layer["self_attn.k_norm.weight"])
        attended = functional.scaled_dot_product_attention(
            self._rotate(q),
            self._rotate(k),
            v,
            attn_mask=self._mask,
            scale=config.head_dim**-0.5,
            enable_gqa=True,
        )  # [S, H, L, D]
        return attended.transpose(1, 2).flatten(2)

    def feed_forward_input(self, layer: LayerTensors, residual: Tensor) -> Tensor:
        """Return what gate and up read, [S, L, hidden]."""
        return self._norm(residual, layer["post_attention_layernorm.weight"])

    def gate(self, layer: LayerTensors, normed: Tensor) -> Tensor:
        """Return what the down projection reads, [S, L, intermediate]."""
        gate = project(layer, "mlp.gate_proj", normed)
        return functional.silu(gate, inplace=True).mul_(project(layer, "mlp.up_proj", normed))

    def residual(self, layer: LayerTensors, x: Tensor) -> Tensor:
        """Return the residual stream between attention and feed-forward, [S, L, hidden]."""
        attended = self.attend(layer, self.attention_input(layer, x))
        return x + project(layer, "self_attn.o_proj", attended)

    def __call__(self, layer: LayerTensors, x: Tensor) -> Tensor:
        """Return the layer's output [S, L, hidden] for `x` of the same shape."""
        residual = self.residual(layer, x)
        gated = self.gate(layer, self.feed_forward_input(layer, residual))
        return residual + project(layer, "mlp.down_proj", gated)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        mean = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + self._config.rms_norm_eps) * weight

    def _heads(self, x: Tensor, num_heads: int) -> Tensor:
        heads: Tensor = x.unflatten(-1, (num_heads, self._config.head_dim))
        return heads.transpose(1, 2)  # [S, H, L, D]

    def _rotate(self, x: Tensor) -> Tensor:
        half = self._config.head_dim // 2
        turned = torch.cat((x[..., half:], x[..., :half]), dim=-1)
        return x * self._cos + turned * self._signed_sin


def project(layer: LayerTensors, name: str, x: Tensor) -> Tensor:
    """Apply one projection of `layer`, with its bias where it has one."""
    return functional.linear(x, layer[f"{name}.weight"], layer.get(f"{name}.bias"))


def map_windows(function: Callable[[Tensor], Tensor], x: Tensor, into: Tensor, chunk: int) -> None:
    """Write `function` of `x` into `into`, `chunk` windows at a time; they may be one tensor."""
    for start in range(0, len(x), chunk):
        into[start : start + chunk] = function(x[start : start + chunk])


def _mask(config: ModelConfig, length: int, index: int) -> Tensor:
    """Return [L, L], true where a query (row) sees a key."""
    distance = torch.arange(length)[:, None] - torch.arange(length)
    mask = distance >= 0
    window = config.sliding_window
    if window is not None and index >= config.num_full_attention_layers:
        mask &= distance < window
    return mask
