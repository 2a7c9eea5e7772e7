"""Safetensors out of what was downloaded, where it came in another form."""

from __future__ import annotations

from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.progress import Progress
from tgi_cli.runtime.hub.download.result import Obtained


def converted(obtained: Obtained, options: DownloadOptions, progress: Progress) -> Obtained:
    """Return the model with the folder that its conversion made, if one was wanted.

    Raises:
        UnsupportedModelError: it can't be converted.
    """
    if options.convert == "only" or options.to_safetensors or options.merge_lora:
        raise UnsupportedModelError(f"{obtained.model_id}: conversion isn't part of this version.")
    return obtained
