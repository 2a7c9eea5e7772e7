"""Fetch a repository from the Hugging Face hub: only the files that serving needs, at one commit.

The hub's own client does the work and keeps its standard cache. Its errors become four sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tgi_cli.errors import ModelNotFoundError

_SMALL_FILES = [
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "quant_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "processor_config.json",
]
_WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
_REPOSITORY = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


@dataclass(frozen=True, slots=True)
class Fetched:
    folder: Path
    sha: str | None
    pipeline_tag: str | None


def fetch(
    model_id: str,
    revision: str | None,
    cache_dir: str | None,
    *,
    token: str | None = None,
    has_weights: bool = False,
) -> Fetched:
    """Return the local snapshot of a repository, downloading what is missing.

    `has_weights` says that the weights are somewhere else: only the small files are fetched.

    Raises:
        ModelNotFoundError: no such repository or revision, no access, or no network.
    """
    if not _REPOSITORY.fullmatch(model_id):
        raise ModelNotFoundError(f"{model_id[:100]!r} is neither a path nor a hub id (org/name).")
    try:
        pipeline_tag = None
        if not constants.HF_HUB_OFFLINE:
            info = HfApi(token=token).model_info(model_id, revision=revision)
            revision, pipeline_tag = info.sha, info.pipeline_tag
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=_cache_folder(model_id, cache_dir),
            token=token,
            allow_patterns=_SMALL_FILES if has_weights else _SMALL_FILES + _WEIGHTS,
        )
    except GatedRepoError as exc:
        raise ModelNotFoundError(
            f"{model_id}: access is restricted.",
            hint=f"Accept the licence on https://huggingface.co/{model_id} and set HF_TOKEN.",
        ) from exc
    except RevisionNotFoundError as exc:
        raise ModelNotFoundError(f"{model_id}: no revision {revision!r}.") from exc
    except (RepositoryNotFoundError, HFValidationError) as exc:
        raise ModelNotFoundError(
            f"{model_id}: no such folder, and no such repository on the hub (or it is private).",
            hint="Check --model-id; for a private repository set HF_TOKEN.",
        ) from exc
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as exc:
        raise ModelNotFoundError(
            f"{model_id}: no such folder, and the hub can't be reached ({type(exc).__name__}).",
            hint="Check the network, or give a local folder; offline, only the cache is used.",
        ) from exc
    return Fetched(Path(folder), revision, pipeline_tag)


def _cache_folder(model_id: str, cache_dir: str | None) -> Path:
    """Return the cache that holds the repository, else the usual one.

    Older images kept repositories in the cache's root, newer ones in its folder `hub`: what one of
    them has fetched isn't fetched again.
    """
    usual = Path(cache_dir or constants.HF_HUB_CACHE)
    repository = f"models--{model_id.replace('/', '--')}"
    for folder in (usual, usual / "hub", usual.parent):
        if (folder / repository / "snapshots").is_dir():
            return folder
    return usual
