"""What the arguments of TGI's programs are in ours. Pure functions on lists of words.

`text-generation-launcher` takes the words of `tgi serve` as they are. The web process and the model
process are parts of `tgi serve` here, so their programs start the whole server, but for the jobs
`download-weights` and `quantize`, which are `tgi download` and `tgi quantize`.
Spec: launcher-options.md sections 2.5 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

_ROUTERS_RATIO = "1.2"  # its own default; the launcher's is 0.3
_ROUTER_FLAGS = {"--tokenizer-name": "--model-id"}
_SERVER_FLAGS = {"--uds-path": "--shard-uds-path", "--logger-level": "--log-level"}
_SERVER_SWITCHES = {
    f"--no-{name}": f"--{name}=false" for name in ("sharded", "trust-remote-code", "json-output")
}
_DOWNLOAD_FLAGS = {"--logger-level": "--log-level"}
# Its `quantize` knows one method, and damps less than ours does by default.
_QUANTIZE_DEFAULTS = ("--method", "gptq", "--bits", "4", "--sym", "--damp", "0.01")
_QUANTIZE_FLAGS = {
    "--percdamp": "--damp",
    "--act-order": "--desc-act",
    "--no-act-order": "--no-desc-act",
    "--groupsize": "--group-size",
    "--upload-to-model-id": "--push-to-hub",
    "--logger-level": "--log-level",
}


def router_arguments(words: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the arguments of `tgi` that do what `text-generation-router` was asked for."""
    if words[:1] == ["print-schema"]:
        return list(words)
    own: list[str] = []
    if not _is_set("WAITING_SERVED_RATIO", environ):
        own += ["--waiting-served-ratio", _ROUTERS_RATIO]
    if _is_set("TOKENIZER_NAME", environ) and not _is_set("MODEL_ID", environ):
        own += ["--model-id", environ.get("TGI_TOKENIZER_NAME") or environ["TOKENIZER_NAME"]]
    return ["serve", *own, *_renamed(words, _ROUTER_FLAGS)]  # the last of two equal flags counts


def server_arguments(words: Sequence[str]) -> list[str]:
    """Return the arguments of `tgi` that do what `text-generation-server` was asked for."""
    if words[:1] == ["download-weights"]:
        return ["download", *_download_words(list(_renamed(words[1:], _DOWNLOAD_FLAGS)))]
    if words[:1] == ["quantize"]:
        return ["quantize", *_QUANTIZE_DEFAULTS, *_renamed(words[1:], _QUANTIZE_FLAGS)]
    return [_SERVER_SWITCHES.get(word, word) for word in _renamed(words, _SERVER_FLAGS)]


def _download_words(words: list[str]) -> Iterator[str]:
    """Yield the arguments of `tgi download`.

    There, safetensors were what was looked for first, and another extension was a demand that left
    the files as they are.
    """
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if flag != "--extension" or not (equals or words):
            yield word
            continue
        extension = value if equals else words.pop(0)
        if extension != ".safetensors":
            yield from ("--extension", extension, "--convert", "never")


def _is_set(variable: str, environ: Mapping[str, str]) -> bool:
    return bool(environ.get(f"TGI_{variable}") or environ.get(variable))


def _renamed(words: Sequence[str], names: Mapping[str, str]) -> Iterator[str]:
    for word in words:
        flag, equals, value = word.partition("=")
        yield f"{names.get(flag, flag)}{equals}{value}"
