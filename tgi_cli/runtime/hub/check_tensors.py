"""Before anything is served: is every tensor there that the model needs, and is it right?"""

from __future__ import annotations

from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.quantization import Quantization
from tgi_cli.runtime.config.quantization.format import FLOATS
from tgi_cli.runtime.config.stored_tensors import stored_tensors
from tgi_cli.runtime.hub.weights_reader import WeightsReader


def check_tensors(
    config: ModelConfig, reader: WeightsReader, quantization: Quantization | None = None
) -> None:
    """Compare the files' directories with what the model needs; reads no weights.

    Raises:
        CorruptModelError: names the file, the tensor, what was expected and what was found.
    """
    for name, expected in stored_tensors(config, quantization).items():
        found = reader.find(name)
        if found is None:
            if not expected.is_required:
                continue
            raise CorruptModelError(
                f"Tensor {name!r} of shape {list(expected.shape)} is missing from the model's "
                "files.",
                hint="Download the model again; all of its shards are needed.",
            )
        path, info = found
        if not expected.fits(info.shape):
            raise CorruptModelError(
                f"{path.name}: tensor {info.name!r} has shape {list(info.shape)}; "
                f"config says {list(expected.shape)}."
            )
        if info.dtype not in expected.dtypes:
            wanted = "floats" if expected.dtypes >= FLOATS else " or ".join(sorted(expected.dtypes))
            raise CorruptModelError(
                f"{path.name}: tensor {info.name!r} is of type {info.dtype}; "
                f"weights must be {wanted}."
            )
