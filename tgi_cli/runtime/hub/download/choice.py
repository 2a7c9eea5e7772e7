"""Which files of a repository serving needs. Pure functions on the hub's listing.

The smart set: safetensors if there are any, else PyTorch's files, else one GGUF file; and beside
them configuration, tokenizer, chat template and processor. Where an index lists the weights, the
weights are what it lists. Files in folders (`original/`, `onnx/`), other frameworks' copies,
optimizer states and training arguments are never in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from tgi_cli.errors import ModelNotFoundError, NotAModelError, UsageError, VerificationError
from tgi_cli.runtime.config.download import DownloadOptions, Extension
from tgi_cli.runtime.hub.convert.names import pickle_names
from tgi_cli.runtime.hub.download.listing import Listing, RemoteFile
from tgi_cli.runtime.hub.gguf_parts import PART_NAME

SAFETENSORS_INDEX = "model.safetensors.index.json"
PYTORCH_INDEX = "pytorch_model.bin.index.json"

_SMALL = (
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "quantization_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "adapter_config.json",
    "params.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tokenizer.model.v*",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
_NO_MODEL = re.compile(r"(?:^|[-_./])(?:mmproj|imatrix)", re.I)  # parts beside a GGUF model

ReadText = Callable[[RemoteFile], str]


@dataclass(frozen=True, slots=True)
class Choice:
    files: tuple[RemoteFile, ...]
    gguf_file: str | None = None  # the first of a set, if weights are GGUF

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    def ending(self, *endings: str) -> tuple[RemoteFile, ...]:
        return tuple(file for file in self.files if file.name.endswith(endings))


def choose_files(
    listing: Listing, options: DownloadOptions, quantization: str | None, read_text: ReadText
) -> Choice:
    """Return what to fetch; `read_text` gets an index.

    Raises:
        UsageError: several GGUF files would do; the message lists them.
        ModelNotFoundError, NotAModelError: nothing would do.
        VerificationError: an index that lists files which aren't there.
    """
    allowed = [
        file
        for file in listing.files
        if not any(fnmatchcase(file.name, glob) for glob in options.excludes)
    ]
    if options.includes:
        files = [f for f in allowed if any(fnmatchcase(f.name, g) for g in options.includes)]
        if not files:
            raise ModelNotFoundError(
                f"{listing.repository}: no file matches {' '.join(options.includes)}.",
                hint="`--dry-run` without --include shows what would be fetched.",
            )
        return Choice(tuple(files))
    small = [file for file in allowed if _is_small(file.name, options)]
    if not options.has_weights:
        return Choice(tuple(small))
    wants_gguf = quantization is not None or options.gguf_file is not None
    if not wants_gguf:
        weights = _weights(listing.repository, allowed, options.extension, read_text)
        if weights:
            return Choice(tuple(_in_order(listing, [*small, *weights])))
    ggufs = [file for file in allowed if file.name.endswith(".gguf")]
    if ggufs and (wants_gguf or options.extension in (None, ".gguf")):
        chosen = _gguf(listing.repository, ggufs, options.gguf_file, quantization)
        return Choice(tuple(chosen), gguf_file=chosen[0].name)
    wanted = options.extension or (".gguf" if wants_gguf else "safetensors, .bin, .pt or .gguf")
    raise NotAModelError(
        f"{listing.repository}: the repository isn't a model that can be served (no {wanted} file)."
    )


def _is_small(name: str, options: DownloadOptions) -> bool:
    if name.endswith(".py"):
        return options.trust_remote_code and "/" not in name
    return any(fnmatchcase(name, glob) and name.count("/") == glob.count("/") for glob in _SMALL)


def _in_order(listing: Listing, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    wanted = {file.name for file in files}
    return [file for file in listing.files if file.name in wanted]


def _weights(
    repository: str, files: Sequence[RemoteFile], only: Extension | None, read_text: ReadText
) -> list[RemoteFile]:
    """Return the weights of the best kind that is there, with their index."""
    root = {file.name: file for file in files if "/" not in file.name}
    if only in (None, ".safetensors"):
        if SAFETENSORS_INDEX in root:
            return _indexed(repository, root, SAFETENSORS_INDEX, read_text)
        if found := _safetensors(root):
            return found
    if only in (None, ".bin") and PYTORCH_INDEX in root:
        return _indexed(repository, root, PYTORCH_INDEX, read_text)
    endings = {None: (".bin", ".pt", ".pth"), ".bin": (".bin",), ".pt": (".pt", ".pth")}
    names = [name for name in root if name.endswith(endings.get(only, ()))]
    return [root[name] for name in pickle_names(names)]


def _safetensors(root: dict[str, RemoteFile]) -> list[RemoteFile]:
    """Return the usual file alone, since others beside it are variants of it; else all."""
    if "model.safetensors" in root:
        return [root["model.safetensors"]]
    return [file for name, file in root.items() if name.endswith(".safetensors")]


def _indexed(
    repository: str, root: dict[str, RemoteFile], index: str, read_text: ReadText
) -> list[RemoteFile]:
    names = index_shards(read_text(root[index]), f"{repository}: {index}")
    missing = [name for name in names if name not in root]
    if missing:
        raise VerificationError(
            f"{repository}: {index} lists {len(names)} files and {len(missing)} of them aren't "
            f"in the repository, such as {missing[0][:100]!r}.",
            hint="The upload isn't complete; try another --revision or tell its owner.",
        )
    return [root[index], *(root[name] for name in names)]


def index_shards(text: str, what: str) -> list[str]:
    """Return the files that an index of weights lists, sorted.

    Raises:
        VerificationError: it isn't an index.
    """
    try:
        index = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        weight_map = msgspec.json.decode(index["weight_map"], type=dict[str, str])
    except (msgspec.MsgspecError, KeyError, RecursionError) as exc:
        raise VerificationError(f"{what}: not an index of weights.") from exc
    names = sorted(set(weight_map.values()))
    if not names or any("/" in name for name in names):
        raise VerificationError(f"{what}: weight_map must name files beside it.")
    return names


def _gguf(
    repository: str,
    files: Sequence[RemoteFile],
    name: str | None,
    quantization: str | None,
) -> list[RemoteFile]:
    sets = _gguf_sets(files)
    if name is not None:
        for members in sets.values():
            if name in (file.name for file in members):
                return _whole(repository, members)
        raise ModelNotFoundError(f"{repository}: no file {name[:100]!r}.", hint=_listed(sets))
    candidates = {first: each for first, each in sets.items() if not _NO_MODEL.search(first)}
    if quantization is not None:
        pattern = re.compile(rf"(?:^|[-_./]){re.escape(quantization)}(?=[-_./]|$)", re.I)
        candidates = {first: each for first, each in candidates.items() if pattern.search(first)}
        if not candidates:
            raise ModelNotFoundError(
                f"{repository}: no GGUF file with {quantization!r} in its name.",
                hint=_listed(sets),
            )
    if len(candidates) != 1:
        raise UsageError(
            f"{repository}: {len(candidates)} GGUF files would do", hint=_listed(candidates or sets)
        )
    return _whole(repository, next(iter(candidates.values())))


def _whole(repository: str, members: list[RemoteFile]) -> list[RemoteFile]:
    split = PART_NAME.fullmatch(members[0].name)
    if split is not None and len(members) != int(split["count"]):
        raise VerificationError(
            f"{repository}: {members[0].name} is one of {int(split['count'])} parts, and the "
            f"repository has {len(members)} of them.",
            hint="The upload isn't complete; try another --revision or tell its owner.",
        )
    return members


def _gguf_sets(files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Return the files by their first one: a split model is one entry, in order."""
    sets: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        split = PART_NAME.fullmatch(file.name)
        first = f"{split['stem']}-00001-of-{split['count']}.gguf" if split else file.name
        sets.setdefault(first, []).append(file)
    return sets


def _listed(sets: dict[str, list[RemoteFile]]) -> str:
    shown = [
        f"{first} ({sum(file.num_bytes for file in members) / 1e9:.2f} GB)"
        for first, members in list(sets.items())[:40]
    ]
    more = f" and {len(sets) - 40} more" if len(sets) > 40 else ""
    return f"Name one with --gguf-file, or as MODEL:Q4_K_M: {', '.join(shown)}{more}."
