"""The tokenizer that a GGUF file's metadata describes, in the `tokenizers` library's own format.

Two kinds exist: `gpt2` is byte-level BPE with one of a few named ways of cutting text into words
first, and `llama` is SentencePiece BPE with byte fallback, whose merges are implied by the
pieces' scores. Names and expressions: llama.cpp's llama-vocab.cpp (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from tgi_cli.errors import CorruptModelError, UnsupportedModelError
from tgi_cli.runtime.config.model_config import TextAssets

_CONTROL, _USER_DEFINED = 3, 4  # ggml's token types

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_WORDS = _LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


def gguf_text_assets(metadata: Mapping[str, Any], source: str) -> TextAssets:
    """Return tokenizer, special tokens and chat templates.

    Raises:
        UnsupportedModelError: a kind of tokenizer that this build doesn't know.
        CorruptModelError: lists of different lengths, ids outside the vocabulary.
    """
    tokens = _strings(metadata, "tokenizer.ggml.tokens", source)
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = _byte_level(metadata, tokens, source)
    elif kind == "llama":
        tokenizer = _sentencepiece(metadata, tokens, source)
    else:
        raise UnsupportedModelError(
            f"{source}: tokenizer {str(kind)[:40]!r}; this build reads gpt2 and llama from GGUF."
        )
    _add_special_tokens(tokenizer, metadata, tokens, source)
    bos = _token_at(metadata, "tokenizer.ggml.bos_token_id", tokens, source)
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama") is True
    if adds_bos and bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokens.index(bos))],
        )
    return TextAssets(
        tokenizer_json=tokenizer.to_str(),
        bos_token=bos,
        eos_token=_token_at(metadata, "tokenizer.ggml.eos_token_id", tokens, source),
        chat_templates=_chat_templates(metadata),
    )


def gguf_eos_token_ids(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end a sequence: end of sequence and end of turn."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    found = [metadata[key] for key in keys if type(metadata.get(key)) is int]
    return tuple(dict.fromkeys(found))


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], source: str) -> Tokenizer:
    pairs = _strings(metadata, "tokenizer.ggml.merges", source)
    merges = [(left, right) for left, _, right in (pair.partition(" ") for pair in pairs)]
    words = metadata.get("tokenizer.ggml.pre", "default")
    try:
        model = models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=words in ("llama-bpe", "llama3"),
        )
    except Exception as exc:
        # The library raises nothing more specific for merges that the vocabulary doesn't hold.
        raise CorruptModelError(f"{source}: the tokenizer's merges and tokens disagree.") from exc
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = _word_splitter(words, source)
    if words == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _word_splitter(words: object, source: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    only_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if words in ("gpt-2", "gpt2"):
        return byte_level
    if words == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, byte_level])
    expressions = {"llama-bpe": _LLAMA3_WORDS, "llama3": _LLAMA3_WORDS, "qwen2": _QWEN2_WORDS}
    if words in expressions:
        split = pre_tokenizers.Split(Regex(expressions[str(words)]), behavior="isolated")
        return pre_tokenizers.Sequence([split, only_bytes])
    raise UnsupportedModelError(
        f"{source}: pre-tokenizer {str(words)[:40]!r} isn't known to this build "
        "(gpt-2, smollm, llama-bpe, qwen2)."
    )


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], source: str) -> Tokenizer:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise CorruptModelError(f"{source}: tokenizer.ggml.scores must have one score per token.")
    ids = {token: index for index, token in enumerate(tokens)}
    unknown = _token_at(metadata, "tokenizer.ggml.unknown_token_id", tokens, source)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=_implied_merges(ids, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    restore: list[decoders.Decoder] = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend("▁"))
        restore.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(restore)
    return tokenizer


def _implied_merges(ids: Mapping[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Return the pairs that make up each piece, the best piece first."""
    merges: list[tuple[float, int, int, tuple[str, str]]] = []
    for piece, index in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                merges.append((-scores[index], ids[left], ids[right], (left, right)))
    merges.sort(key=lambda merge: merge[:3])
    return [pair for *_, pair in merges]


def _add_special_tokens(
    tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: list[str], source: str
) -> None:
    kinds = metadata.get("tokenizer.ggml.token_type")
    if kinds is None:
        return
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise CorruptModelError(f"{source}: tokenizer.ggml.token_type must have one per token.")
    named = list(zip(tokens, kinds, strict=True))
    control = [AddedToken(t, normalized=False) for t, kind in named if kind == _CONTROL]
    defined = [AddedToken(t, normalized=False) for t, kind in named if kind == _USER_DEFINED]
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens(defined)


def _token_at(metadata: Mapping[str, Any], key: str, tokens: list[str], source: str) -> str | None:
    index = metadata.get(key)
    if index is None:
        return None
    if type(index) is not int or not 0 <= index < len(tokens):
        raise CorruptModelError(f"{source}: {key} is {index!r}, outside the vocabulary.")
    return tokens[index]


def _strings(metadata: Mapping[str, Any], key: str, source: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise CorruptModelError(f"{source}: {key} must be a list of strings.")
    return value


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    prefix = "tokenizer.chat_template"
    templates = {}
    for key, value in metadata.items():
        if isinstance(value, str) and (key == prefix or key.startswith(prefix + ".")):
            templates[key.removeprefix(prefix).lstrip(".") or "default"] = value
    return templates
