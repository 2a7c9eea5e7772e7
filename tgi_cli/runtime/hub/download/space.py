"""How much room a download takes beyond its own bytes: what its conversion will write."""

from __future__ import annotations

from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.choice import Choice

GGUF_GROWTH = 3.6  # from four bits a weight, with their scales, to sixteen
_PICKLES = (".bin", ".pt", ".pth")


def wants_gguf_converted(options: DownloadOptions) -> bool:
    return options.to_safetensors or options.convert == "only"


def conversion_bytes(choice: Choice, options: DownloadOptions) -> int:
    """Return about how many bytes the conversion of the chosen files will write; 0 without one."""
    if choice.gguf_file is not None:
        if not wants_gguf_converted(options):
            return 0
        return int(GGUF_GROWTH * sum(file.num_bytes for file in choice.ending(".gguf")))
    if options.convert == "never" or choice.ending(".safetensors"):
        return 0
    return sum(file.num_bytes for file in choice.ending(*_PICKLES))
