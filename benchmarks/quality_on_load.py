"""Measure a model that is quantised while it is loaded, and write what it costs as JSON.

A process of its own for `benchmarks.quantize_quality`, so that its memory can be read off its end:

    python -m benchmarks.quality_on_load MODEL METHOD SEQUENCE_LENGTH OUTPUT

MODEL is a folder of safetensors; the text is the one that `tgi quantize` measures on.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import msgspec

from tgi_cli.runtime.config.quantization import OnLoad
from tgi_cli.runtime.config.quantization.on_load import Method
from tgi_cli.runtime.config.quantize import QuantizeOptions
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.platforms import cpu
from tgi_cli.runtime.quantize.calibrate import held_out
from tgi_cli.runtime.quantize.evaluate import compare
from tgi_cli.runtime.text.tokenizer import Tokenizer


def main(model: str, method: str, sequence_length: str, output: str) -> None:
    num_threads = len(os.sched_getaffinity(0))
    cpu.prepare_process(num_threads)
    cpu.set_num_threads(num_threads)
    base = locate_model(model)
    num_samples = QuantizeOptions().evaluation_samples
    text = held_out(Tokenizer(base.text), num_samples, int(sequence_length))
    compared = compare(base, _quantized_on_load(base, method), text, lambda _: None)
    found = {"quality": compared.quality, "after": compared.after}
    Path(output).write_bytes(msgspec.json.encode(found))


def _quantized_on_load(located: LocatedModel, method: str) -> LocatedModel:
    quantization = OnLoad(method=msgspec.convert(method, Method))
    weights = msgspec.structs.replace(located.weights, quantization=quantization)
    return dataclasses.replace(located, weights=weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
