"""AWQ checkpoints in AutoAWQ's GEMM order. Lin et al., AWQ, arXiv:2306.00978."""

from __future__ import annotations

from typing import ClassVar

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.format import (
    HALVES,
    INT32,
    Format,
    StoredTensor,
    num_groups,
    num_words,
)
from tgi_cli.runtime.config.quantization.values import (
    check_bits,
    group_size_of,
    module_names,
    unsupported,
)


class Awq(Format, frozen=True, kw_only=True, tag="awq"):
    """w[n, k] = (q - z) * s in 4 bits, with z and s of n and the group of k."""

    methods: ClassVar = ("awq", "marlin")

    group_size: int | None

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        groups, words = num_groups(num_in, self.group_size), num_words(num_out, 4, "output")
        return {
            "qweight": StoredTensor((num_in, words), INT32),
            "qzeros": StoredTensor((groups, words), INT32),
            "scales": StoredTensor((groups, num_out), HALVES),
        }

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        return num_out * (num_in // 2 + 8 * num_groups(num_in, self.group_size))


def parse_awq(fields: Fields) -> Awq:
    """Read `quantization_config`, or AutoAWQ's old quant_config.json (`w_bit`, `q_group_size`)."""
    is_old = fields.get("w_bit") is not None
    check_bits(fields, "w_bit" if is_old else "bits", (4,))
    named = fields.text("version") or fields.text("checkpoint_format") or fields.text("format")
    version = (named or "gemm").lower()
    if version != "gemm":
        raise unsupported(fields, f"AWQ in the order {version[:40]!r}; this build reads 'gemm'")
    return Awq(
        group_size=group_size_of(fields, "q_group_size" if is_old else "group_size"),
        unconverted=module_names(fields, "modules_to_not_convert"),
    )
