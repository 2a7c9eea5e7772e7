"""`tgi download`: put a model's files on this disk, whole and checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tgi_cli import runtime
from tgi_cli.commands._completion import complete_model
from tgi_cli.commands._console import print_error
from tgi_cli.commands._download_screen import DownloadScreen
from tgi_cli.commands._options import completer
from tgi_cli.errors import StartError, UsageError
from tgi_cli.runtime.config import download as settings
from tgi_cli.runtime.config.parsers import num_bytes
from tgi_cli.runtime.config.resolved import LogConfig

_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
_INTERRUPTED = 130


def _size(value: str) -> int:
    try:
        return num_bytes(value)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def _size_or_none(value: str) -> int:
    return 0 if value == "0" else _size(value)


def _one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in values:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(values)}")
        return value

    return parse


def _choice(values: tuple[str, ...], help: str, *names: str) -> Any:
    return typer.Option(
        *names,
        parser=_one_of(values),
        metavar="|".join(values),
        autocompletion=completer(values),
        help=help,
    )


def download(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="org/name, org/name@REVISION, org/name:Q4_K_M, demo, or a local path to check.",
            autocompletion=complete_model,
        ),
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit. (default: main)")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Fetch these files, not those that serving needs."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Leave these files out.")
    ] = None,
    extension: Annotated[
        Any,
        _choice(
            settings.EXTENSIONS,
            "The only kind of weights that will do. (default: the first of these that is there)",
        ),
    ] = None,
    gguf_file: Annotated[
        str | None, typer.Option(metavar="NAME", help="The GGUF file, where there are several.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Fetch the repository's own code too. It isn't run.")
    ] = False,
    cache_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="The hub's cache. (env: HF_HUB_CACHE, HF_HOME)"),
    ] = None,
    local_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Put plain files here, not in the cache.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=settings.MAX_WORKERS, help="Files at a time.")
    ] = 8,
    verify: Annotated[Any, _choice(settings.CHECKS, "What is compared with the hub.")] = "sha256",
    convert: Annotated[
        Any,
        _choice(
            settings.CONVERSIONS,
            "Make safetensors of .bin and .pt files; only: of GGUF files too.",
        ),
    ] = "auto",
    auto_convert: Annotated[
        bool | None,
        typer.Option(help="The older names of --convert auto and never.", show_default=False),
    ] = None,
    to_safetensors: Annotated[
        bool, typer.Option("--to-safetensors", help="Make safetensors of a GGUF file too.")
    ] = False,
    merge_lora: Annotated[
        bool, typer.Option(help="Merge a LoRA adapter into its base model.")
    ] = False,
    dtype: Annotated[
        Any,
        _choice(settings.DTYPES, "Type of converted weights. (default: as stored; GGUF: bfloat16)"),
    ] = None,
    shard_size: Annotated[
        Any, typer.Option(parser=_size, metavar="SIZE", help="Largest file of converted weights.")
    ] = "5GB",
    offline: Annotated[
        bool, typer.Option("--offline", help="Only look into the cache. (env: HF_HUB_OFFLINE)")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            help="The hub's token, which other users can see here: prefer --token-file. "
            "(env: HF_TOKEN)"
        ),
    ] = None,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Read the token from a file; - is stdin.")
    ] = None,
    min_free: Annotated[
        Any,
        typer.Option(
            parser=_size_or_none, metavar="SIZE", help="Space on the disk that stays free."
        ),
    ] = "1GB",
    ignore_disk_space: Annotated[
        bool, typer.Option("--ignore-disk-space", help="Begin even if the files won't fit.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which files would be fetched.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as one line of JSON.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the path and nothing else.")
    ] = False,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="Of the lines that stand in for bars.")
    ] = "info",
    json_output: Annotated[
        bool, typer.Option(help="Write these lines as JSON, on a terminal too.")
    ] = False,
) -> None:
    """Download a model: only what serving needs, resumable and verified.

    The last line on stdout is the path of the model's folder. Exit codes: 0 done, 2 usage or
    several GGUF files, 3 not found or no access, 4 network, 5 damaged files, 6 conversion,
    7 disk space, 130 interrupted.
    """
    try:
        options = settings.DownloadOptions(
            model_id=model,
            revision=revision,
            includes=tuple(include or ()),
            excludes=tuple(exclude or ()),
            extension=extension,
            gguf_file=gguf_file,
            trust_remote_code=trust_remote_code,
            cache_dir=cache_dir,
            local_dir=local_dir,
            num_workers=workers,
            check=verify,
            convert=_conversion(convert, auto_convert),
            to_safetensors=to_safetensors,
            merge_lora=merge_lora,
            dtype=dtype,
            shard_bytes=shard_size,
            is_offline=offline,
            token=_token(token, token_file),
            min_free_bytes=min_free,
            ignores_disk_space=ignore_disk_space,
            is_dry_run=dry_run,
        )
        screen = DownloadScreen(is_json=as_json, is_quiet=quiet, has_log=json_output)
        exit_code = runtime.download(options, LogConfig(level=log_level, json=json_output), screen)
    except StartError as exc:
        print_error(exc)
        exit_code = exc.exit_code
    except KeyboardInterrupt:  # before there was anything to interrupt
        exit_code = _INTERRUPTED
    raise typer.Exit(exit_code)


def _conversion(convert: Any, auto_convert: bool | None) -> Any:
    if auto_convert is None:
        return convert
    if convert != "auto":
        raise UsageError(f"--convert {convert} and --auto-convert can't be given together")
    return "auto" if auto_convert else "never"


def _token(token: str | None, token_file: str | None) -> str | None:
    """Return the token; None leaves it to the hub's own login file."""
    if token is not None and token_file is not None:
        raise UsageError("give --token or --token-file, not both")
    if token_file is not None:
        try:
            text = sys.stdin.read() if token_file == "-" else Path(token_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"--token-file {token_file} can't be read") from exc
        token = text.strip()
        if not token:
            raise UsageError("--token-file holds no token")
    given = (os.environ.get(f"{prefix}{n}") for n in _TOKEN_VARIABLES for prefix in ("TGI_", ""))
    found = token or next((value.strip() for value in given if value), None)
    # A header can hold nothing else, and an error about it would show the token.
    if found is not None and not (found.isascii() and found.isprintable() and " " not in found):
        raise UsageError("the hub's token holds characters that no token has")
    return found
