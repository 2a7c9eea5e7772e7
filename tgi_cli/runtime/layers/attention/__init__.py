"""Attention over the paged cache. A backend lays out a step once, then attends layer by layer.

The protocol stands with the CPU's implementations, since kernels import nothing from here;
backends of other devices will stand in this folder.
"""

from __future__ import annotations

from tgi_cli.kernels.paged_attention import Implementation as AttentionBackend

__all__ = ["AttentionBackend"]
