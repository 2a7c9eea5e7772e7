"""Attention over the paged cache. A backend lays out a step once, then attends layer by layer.

The protocol stands with the CPU's implementations, since kernels import nothing from here. In this
folder are the backends of GPUs: our kernels (`triton_paged.py`), and libraries where they are
installed and asked for.
"""

from __future__ import annotations

from tgi_cli.kernels.paged_attention import Implementation as AttentionBackend

__all__ = ["AttentionBackend"]
