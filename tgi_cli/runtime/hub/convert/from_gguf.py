"""The plan for a GGUF file: its tensors as floats, and the files of a folder from its metadata.

The families, names and permutations are those of the reader that serves GGUF files, so a model that
can't be served is refused here too. Precision that a quantised file lost doesn't come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgi_cli.errors import ConversionError, TgiError
from tgi_cli.runtime.config.model_config import Dtype
from tgi_cli.runtime.config.tensor_names import expected_tensors, gguf_name
from tgi_cli.runtime.config.write_hf_config import write_hf_config
from tgi_cli.runtime.hub.convert.dtypes import SAFETENSORS_DTYPES, cast
from tgi_cli.runtime.hub.convert.messages import Job
from tgi_cli.runtime.hub.convert.model_files import write_json, write_text_assets
from tgi_cli.runtime.hub.convert.plan import Plan
from tgi_cli.runtime.hub.gguf_file import GgufFile
from tgi_cli.runtime.hub.locate import ROPE_DIVISORS, LocatedModel, locate_model
from tgi_cli.runtime.hub.safetensors_writer import TensorSpec, plan_shards
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import TORCH_DTYPES, Weights

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT_DTYPE: Dtype = "bfloat16"


class GgufSource:
    """Tensors by their Hugging Face names, made floats one at a time."""

    def __init__(self, located: LocatedModel, dtype: Dtype) -> None:
        # Rounded once, from the fp32 that the blocks give.
        self._weights = Weights(WeightsReader(located.weights), located.config, "float32")
        self._dtype = TORCH_DTYPES[dtype]

    def read(self, name: str) -> Tensor:
        return cast(name, self._weights.get(name), self._dtype)

    def release(self, name: str) -> None:
        """Nothing is held: each read is a copy."""


def plan_gguf(job: Job) -> Plan:
    """Raises `ConversionError`: no GGUF file, or a model that a folder can't describe."""
    path = _gguf_file(Path(job.source))
    dtype = job.dtype or _DEFAULT_DTYPE
    try:
        file = GgufFile(path)
        located = locate_model(str(path))
        if len(located.weights.files) > 1:
            raise ConversionError(f"{path.name}: a GGUF model in parts can't be converted.")
        hf_config = write_hf_config(located.config, dtype)
    except TgiError as exc:
        raise ConversionError(exc.message, hint=exc.hint) from exc
    shapes = expected_tensors(located.config)
    _check_nothing_is_left(file, list(shapes))
    specs = [
        TensorSpec(name, SAFETENSORS_DTYPES[TORCH_DTYPES[dtype]], shape)
        for name, shape in shapes.items()
    ]
    ids = _special_ids(file.metadata, located)

    def write_small_files(into: Path) -> None:
        write_json(into / "config.json", hf_config | ids)
        write_json(into / "generation_config.json", ids)
        write_text_assets(located.text, into, _pad_token(file.metadata))

    return Plan(
        source=GgufSource(located, dtype),
        shards=plan_shards(specs, job.shard_size_bytes),
        source_files=[path],
        write_small_files=write_small_files,
        notes=_notes(file, sum(spec.num_bytes for spec in specs), dtype),
    )


def _gguf_file(source: Path) -> Path:
    if source.is_file():
        return source
    found = sorted(source.glob("*.gguf"))
    if len(found) != 1:
        names = f": {', '.join(path.name for path in found)}" if found else ""
        raise ConversionError(f"{source.name}: {len(found)} .gguf files; name one{names}.")
    return found[0]


def _check_nothing_is_left(file: GgufFile, names: list[str]) -> None:
    known = {gguf_name(name) for name in names} | {ROPE_DIVISORS}
    if left := sorted(file.tensors.keys() - known):
        raise ConversionError(
            f"{file.path.name}: tensor {left[0]!r} has no place in this architecture."
        )


def _special_ids(metadata: Mapping[str, Any], located: LocatedModel) -> dict[str, Any]:
    """Return the ids of the special tokens as `config.json` and `generation_config.json` say."""
    ids: dict[str, Any] = {
        f"{name}_token_id": metadata.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in (("bos", "bos"), ("pad", "padding"))
    }
    eos = list(located.eos_token_ids)
    ids["eos_token_id"] = eos[0] if len(eos) == 1 else eos or None
    return {name: value for name, value in ids.items() if value is not None}


def _pad_token(metadata: Mapping[str, Any]) -> str | None:
    index: Any = metadata.get("tokenizer.ggml.padding_token_id")
    tokens: Any = metadata.get("tokenizer.ggml.tokens")
    is_known = type(index) is int and isinstance(tokens, list) and 0 <= index < len(tokens)
    return tokens[index] if is_known else None


def _notes(file: GgufFile, num_bytes: int, dtype: Dtype) -> list[str]:
    stored = sum(info.num_bytes for info in file.tensors.values())
    kinds = sorted({i.dtype for i in file.tensors.values()} - {"F64", "F32", "F16", "BF16"})
    if not kinds:
        return []
    return [
        f"The weights grew to {num_bytes / max(1, stored):.1f} times their size "
        f"({', '.join(kinds)} to {dtype}); the precision that quantising took doesn't come back."
    ]
