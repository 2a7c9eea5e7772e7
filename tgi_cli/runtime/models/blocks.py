"""What decoder families share: attention, gated feed-forward, and the layer that holds both.

T tokens of a step, H query heads, Hkv key heads, D head size. Activations are of the placement's
type; the residual stream is fp32 and added to in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels import decoder
from tgi_cli.kernels.paged_attention.native import NativePlan
from tgi_cli.kernels.rms_norm import norm_heads_
from tgi_cli.kernels.rotary import rotate_
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.layers.context import ForwardContext
from tgi_cli.runtime.layers.kv_cache import KVCache
from tgi_cli.runtime.layers.linear import Projection, project
from tgi_cli.runtime.layers.norm import RMSNorm
from tgi_cli.runtime.models.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


class SelfAttention:
    """Rotary grouped-query attention; biases, head norms and windows where the config has them."""

    def __init__(
        self, config: ModelConfig, weights: Weights, prefix: str, backend: AttentionBackend
    ) -> None:
        self._num_heads = config.num_heads
        self._num_kv_heads = config.num_kv_heads
        self._head_dim = config.head_dim
        self._scale = config.head_dim**-0.5
        self._backend = backend
        parts = [f"{prefix}.{part}_proj" for part in "qkv"]
        self.qkv = project(
            weights.get_side_by_side([f"{part}.weight" for part in parts]),
            weights.get_if(config.attention_bias, *(f"{part}.bias" for part in parts)),
            placement=weights.placement,
        )
        self.out = project(
            weights.get_matrix(f"{prefix}.o_proj.weight"),
            weights.get_if(config.attention_output_bias, f"{prefix}.o_proj.bias"),
            placement=weights.placement,
        )
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            eps, placement = config.rms_norm_eps, weights.placement
            self.q_norm = RMSNorm(weights.get(f"{prefix}.q_norm.weight"), eps, placement)
            self.k_norm = RMSNorm(weights.get(f"{prefix}.k_norm.weight"), eps, placement)

    @property
    def num_bytes(self) -> int:
        return self.qkv.num_bytes + self.out.num_bytes

    def __call__(
        self, x: Tensor, layer_index: int, is_windowed: bool, context: ForwardContext
    ) -> Tensor:
        """Return [T, hidden] for `x` [T, hidden]."""
        num_heads, num_kv_heads = self._num_heads, self._num_kv_heads
        qkv = self.qkv(x).view(-1, num_heads + 2 * num_kv_heads, self._head_dim)
        q, qk = qkv[:, :num_heads], qkv[:, : num_heads + num_kv_heads]
        if self.q_norm is not None and self.k_norm is not None:
            norm_heads_(qk, self.q_norm.weight, self.k_norm.weight, num_heads, self.q_norm.eps)
        rotate_(qk, context.cos, context.signed_sin)
        kv = qkv[:, num_heads:].unflatten(1, (2, num_kv_heads))  # [T, 2, Hkv, D]
        cache = context.kv_cache.layers[layer_index]
        self._backend.store(kv, cache, context.slot_mapping)
        plan = context.windowed_attention if is_windowed else context.attention
        attended = self._backend.attend(q, cache, plan, self._scale, 0.0)  # [T, H, D]
        return self.out(attended.flatten(1))


class GatedFeedForward:
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, weights: Weights, prefix: str) -> None:
        parts = [f"{prefix}.gate_proj", f"{prefix}.up_proj"]
        self.gate_up = project(
            weights.get_side_by_side([f"{part}.weight" for part in parts]),
            weights.get_if(config.mlp_bias, *(f"{part}.bias" for part in parts)),
            gated=True,
            placement=weights.placement,
        )
        self.down = project(
            weights.get_matrix(f"{prefix}.down_proj.weight"),
            weights.get_if(config.mlp_bias, f"{prefix}.down_proj.bias"),
            placement=weights.placement,
        )

    @property
    def num_bytes(self) -> int:
        return self.gate_up.num_bytes + self.down.num_bytes

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.gate_up(x))


class DecoderLayer:
    """Pre-norm attention and feed-forward around one residual stream."""

    def __init__(
        self, config: ModelConfig, weights: Weights, index: int, backend: AttentionBackend
    ) -> None:
        prefix = f"model.layers.{index}"
        eps, placement = config.rms_norm_eps, weights.placement
        self._index = index
        self._is_windowed = (
            config.sliding_window is not None and index >= config.num_full_attention_layers
        )
        self._input_norm = RMSNorm(weights.get(f"{prefix}.input_layernorm.weight"), eps, placement)
        self._attention = SelfAttention(config, weights, f"{prefix}.self_attn", backend)
        self._feed_forward_norm = RMSNorm(
            weights.get(f"{prefix}.post_attention_layernorm.weight"), eps, placement
        )
        self._feed_forward = GatedFeedForward(config, weights, f"{prefix}.mlp")

    @property
    def kernel_layer(self) -> decoder.Layer | None:
        """The weights as the CPU's fused kernel takes them; None if they're elsewhere."""
        attention, feed_forward = self._attention, self._feed_forward
        products = (attention.qkv, attention.out, feed_forward.gate_up, feed_forward.down)
        packed = [product.packed for product in products if isinstance(product, Projection)]
        if len(packed) < len(products):
            return None
        qkv, out, gate_up, down = packed
        return decoder.Layer(
            qkv=qkv,
            out=out,
            gate_up=gate_up,
            down=down,
            input_norm=self._input_norm.weight,
            feed_forward_norm=self._feed_forward_norm.weight,
            q_norm=None if attention.q_norm is None else attention.q_norm.weight,
            k_norm=None if attention.k_norm is None else attention.k_norm.weight,
            is_windowed=self._is_windowed,
        )

    @property
    def num_bytes(self) -> int:
        return self._attention.num_bytes + self._feed_forward.num_bytes

    def __call__(self, update: Tensor | None, residual: Tensor, context: ForwardContext) -> Tensor:
        """Add `update`, the last layer's output, to `residual` in place; return this layer's."""
        x = self._input_norm(residual) if update is None else self._input_norm.add(update, residual)
        x = self._attention(x, self._index, self._is_windowed, context)
        x = self._feed_forward_norm.add(x, residual)
        return self._feed_forward(x)


class DecoderStack:
    """All layers and the final norm: one call of the fused kernel where it can run them, else layer
    by layer. Both give the same bits.
    """

    def __init__(
        self, config: ModelConfig, layers: list[DecoderLayer], final_norm: RMSNorm
    ) -> None:
        self._config = config
        self._layers = layers
        self._final_norm = final_norm
        kernel_layers = [each for layer in layers if (each := layer.kernel_layer) is not None]
        is_fusible = len(kernel_layers) == len(layers) and decoder.can_run(kernel_layers)
        self._fusible = kernel_layers if is_fusible else None
        self._fused: tuple[KVCache, decoder.Decoder] | None = None  # knows the cache's addresses

    @property
    def num_bytes(self) -> int:
        return sum(layer.num_bytes for layer in self._layers)

    def __call__(self, residual: Tensor, context: ForwardContext) -> Tensor:
        """Return the wanted final hidden states [N, hidden]; `residual` [T, hidden] is used up."""
        if self._fusible is not None and isinstance(context.attention, NativePlan):
            return self._fused_for(self._fusible, context.kv_cache).run(
                residual,
                decoder.StepInput(
                    cos=context.cos,
                    signed_sin=context.signed_sin,
                    slot_mapping=context.slot_mapping,
                    plan=context.attention,
                    wanted=context.wanted,
                ),
            )
        update = None
        for layer in self._layers:
            update = layer(update, residual, context)
        assert update is not None, "a model has at least one layer"
        return self._final_norm.add(update, residual)[context.wanted]

    def _fused_for(self, layers: list[decoder.Layer], kv_cache: KVCache) -> decoder.Decoder:
        if self._fused is None or self._fused[0] is not kv_cache:
            config = self._config
            sizes = decoder.Sizes(
                hidden=config.hidden_size,
                intermediate=config.intermediate_size,
                num_heads=config.num_heads,
                num_kv_heads=config.num_kv_heads,
                head_dim=config.head_dim,
                rms_norm_eps=config.rms_norm_eps,
                sliding_window=config.sliding_window,
            )
            made = decoder.Decoder(layers, self._final_norm.weight, sizes, kv_cache.layers)
            self._fused = (kv_cache, made)
        return self._fused[1]
