"""The model that is quantised, read a layer at a time and never changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tgi_cli.runtime.config.model_config import Dtype
from tgi_cli.runtime.config.tensor_names import EMBEDDING, FINAL_NORM, HEAD, expected_tensors
from tgi_cli.runtime.hub.convert.record import SourceFile, source_file
from tgi_cli.runtime.hub.locate import LocatedModel
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES: dict[str, Dtype] = {
    "F64": "float32",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}


class Source:
    """Tensors by their Hugging Face names; those of a layer without its prefix."""

    def __init__(self, located: LocatedModel) -> None:
        self.located = located
        self.config = located.config
        self._reader = WeightsReader(located.weights)

    def stored(self, name: str) -> Tensor:
        """Return one tensor in the type it is stored in; blocks of GGUF in 16 bits."""
        return Weights(self._reader, self.config, self.dtype_of(name)).get(name)

    def dtype_of(self, name: str) -> Dtype:
        found = self._reader.find(name)
        assert found is not None, name
        if self.located.weights.kind == "gguf":
            return self.config.checkpoint_dtype
        return _DTYPES[found[1].dtype]

    def layer(self, index: int) -> dict[str, Tensor]:
        """Return a layer's tensors, as the model computes with them, in fp32."""
        prefix = layer_prefix(index)
        return {
            name.removeprefix(prefix): self.stored(name).float()
            for name in expected_tensors(self.config)
            if name.startswith(prefix)
        }

    @property
    def kept_names(self) -> list[str]:
        """What is outside the layers: written as it is. A tied head is the embedding's."""
        names = [EMBEDDING, FINAL_NORM]
        return names if self.config.tie_word_embeddings else [*names, HEAD]

    def files(self) -> list[SourceFile]:
        """Return the weights' files with their hashes. Reads all of them."""
        return [source_file(Path(name), lambda _: None) for name in self.located.weights.files]


def layer_prefix(index: int) -> str:
    return f"model.layers.{index}."
