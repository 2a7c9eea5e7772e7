"""Before anything is served: is every tensor there that the model needs, and is it right?"""

from __future__ import annotations

from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.tensor_names import expected_tensors
from tgi_cli.runtime.hub.weights_reader import WeightsReader

_FLOAT_TYPES = {"F64", "F32", "F16", "BF16"}
_GGUF_TYPES = {"Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K"}


def check_tensors(config: ModelConfig, reader: WeightsReader) -> None:
    """Compare the files' directories with what the model needs; reads no weights.

    Raises:
        CorruptModelError: names the file, the tensor, what was expected and what was found.
    """
    for name, shape in expected_tensors(config).items():
        found = reader.find(name)
        if found is None:
            raise CorruptModelError(
                f"Tensor {name!r} of shape {list(shape)} is missing from the model's files.",
                hint="Download the model again; all of its shards are needed.",
            )
        path, info = found
        if info.shape != shape:
            raise CorruptModelError(
                f"{path.name}: tensor {info.name!r} has shape {list(info.shape)}; "
                f"config says {list(shape)}."
            )
        if info.dtype not in _FLOAT_TYPES | _GGUF_TYPES:
            raise CorruptModelError(
                f"{path.name}: tensor {info.name!r} is of type {info.dtype}; "
                "weights must be floats."
            )
