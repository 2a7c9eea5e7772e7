"""The demo model as a folder that every peer reads: the same fp16 weights, in safetensors."""

from __future__ import annotations

from pathlib import Path

from tgi_cli.runtime.hub.convert import convert_folder
from tgi_cli.runtime.hub.demo import demo_path


def export_demo(folder: Path) -> None:
    """Write config, tokenizer and weights of the demo model into `folder`, which is empty."""
    convert_folder(demo_path(), folder, kind="gguf", dtype="float16")
