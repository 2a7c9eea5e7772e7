"""What `tgi download` was asked to fetch, and how its options are read. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tgi_cli.errors import UsageError
from tgi_cli.runtime.config.model_config import Dtype

Check = Literal["size", "sha256", "none"]
CHECKS: tuple[Check, ...] = ("size", "sha256", "none")

Conversion = Literal["auto", "never", "only"]
CONVERSIONS: tuple[Conversion, ...] = ("auto", "never", "only")

Extension = Literal[".safetensors", ".bin", ".pt", ".gguf"]
EXTENSIONS: tuple[Extension, ...] = (".safetensors", ".bin", ".pt", ".gguf")

DTYPES: tuple[Dtype, ...] = get_args(Dtype)

GIGABYTE = 1_000_000_000
MAX_WORKERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOptions:
    model_id: str
    revision: str | None = None
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    extension: Extension | None = None  # the only kind of weights that will do
    gguf_file: str | None = None
    has_weights: bool = True  # False: only the small files
    trust_remote_code: bool = False  # the repository's own code is fetched too; it isn't run
    cache_dir: Path | None = None
    local_dir: Path | None = None  # plain files here, in place of the cache
    num_workers: int = 8  # files at a time
    check: Check = "sha256"
    rechecks_cached: bool = True  # also hash what was here before
    convert: Conversion = "auto"
    to_safetensors: bool = False  # GGUF files too
    merge_lora: bool = False
    dtype: Dtype | None = None
    shard_bytes: int = 5 * GIGABYTE
    is_offline: bool = False
    token: str | None = None
    min_free_bytes: int = GIGABYTE
    ignores_disk_space: bool = False
    is_dry_run: bool = False

    def __post_init__(self) -> None:
        if self.local_dir is not None and self.cache_dir is not None:
            raise UsageError("give --cache-dir or --local-dir, not both")
        if self.local_dir is not None and self.is_offline:
            raise UsageError("--local-dir fetches a copy, so it can't be used offline")
        if self.gguf_file is not None and self.extension not in (None, ".gguf"):
            raise UsageError(f"--gguf-file and --extension {self.extension} contradict each other")
        if self.to_safetensors and self.convert == "never":
            raise UsageError("--to-safetensors and --convert never contradict each other")
