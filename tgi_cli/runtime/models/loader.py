"""Build a model from its checkpoint, tensor by tensor.

One tensor at a time is read, rounded, fused and packed, and its source dropped, so that the peak
is the packed weights and a little more: on a GPU the weights there, and one tensor here.
"""

from __future__ import annotations

import logging

from tgi_cli.runtime.config.model_config import Dtype, ModelConfig, WeightsSource
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.layers.placement import CPU, Placement
from tgi_cli.runtime.models.base import Model
from tgi_cli.runtime.models.registry import MODELS
from tgi_cli.runtime.models.weights import Weights
from tgi_cli.runtime.platforms import cpu

_log = logging.getLogger(__name__)


def load_model(
    config: ModelConfig,
    source: WeightsSource,
    dtype: Dtype,
    backend: AttentionBackend,
    placement: Placement = CPU,
) -> Model:
    """Load the weights at `source` and return the model that they make.

    What `source` says is quantised stays as it is; every other weight is rounded to `dtype`.

    Raises:
        CorruptModelError: a file changed since it was checked.
    """
    cpu.give_back_freed_memory()
    weights = Weights(WeightsReader(source), config, dtype, placement)
    model = MODELS[config.family](config, weights, backend)
    if weights.num_dequantized:
        _log.warning(
            "event=dequantised projections=%d: no kernel has their grid, or parts of one "
            "product differ; they take more memory",
            weights.num_dequantized,
        )
    return model
