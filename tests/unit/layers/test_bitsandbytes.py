"""bitsandbytes' formats against what the library wrote: `tests/data/write_bitsandbytes.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.data.write_bitsandbytes import FILE, SHAPES, weight_of
from tgi_cli.kernels import linear
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import BitsAndBytesInt8, Fp4, Nf4, OnLoad
from tgi_cli.runtime.layers.quantization import BadTensorError, load_matrix

FORMATS = {
    "nf4": Nf4(is_nested=False),
    "fp4": Fp4(is_nested=False),
    "nested": Nf4(is_nested=True),
    "odd": Nf4(is_nested=False),
    "int8": BitsAndBytesInt8(),
}
STATE = "weight.quant_state.bitsandbytes__nf4"


def stored(name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in load_file(FILE).items()
        if key.startswith(prefix)
    }


def with_state(**changes: Any) -> dict[str, Tensor]:
    tensors = stored("nf4")
    state = json.loads(bytes(tensors[STATE].tolist())) | changes
    return {**tensors, STATE: as_bytes(json.dumps(state))}


def as_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def widened(matrix: Tensor | Codes) -> Tensor:
    return matrix.dequantize() if isinstance(matrix, Codes) else matrix


def packed(codes: Tensor) -> Tensor:
    high, low = codes.flatten().view(-1, 2).unbind(1)
    return high << 4 | low


@pytest.mark.parametrize("name", ["nf4", "fp4", "odd"])
def test_four_bits_are_read_as_the_library_reads_them(name):
    tensors = stored(name)

    matrix = load_matrix(FORMATS[name], tensors)

    assert torch.equal(widened(matrix), tensors["read"])
    assert isinstance(matrix, Codes) == (name != "odd")


def test_double_quantisation_is_undone_as_the_library_does():
    tensors = stored("nested")

    matrix = load_matrix(FORMATS["nested"], tensors)

    assert isinstance(matrix, Codes)
    assert torch.equal(matrix.scales.flatten(), tensors["absmax_read"])
    assert torch.equal(packed(matrix.codes), tensors["weight"].flatten())


@pytest.mark.parametrize("name", ["nf4", "fp4", "nested"])
def test_codes_made_here_are_the_librarys(name):
    method = "bitsandbytes-fp4" if name == "fp4" else "bitsandbytes-nf4"

    made = load_matrix(OnLoad(method=method), {"weight": weight_of(name)})

    tensors = stored(name)
    assert isinstance(made, Codes)
    assert torch.equal(packed(made.codes), tensors["weight"].view(torch.uint8).flatten())
    if name != "nested":
        assert torch.equal(made.scales.flatten(), tensors["weight.absmax"])


def test_blocks_that_go_on_from_row_to_row_are_made_as_the_library_does():
    made = load_matrix(OnLoad(method="bitsandbytes-nf4"), {"weight": weight_of("odd")})

    assert torch.equal(widened(made), stored("odd")["read"])


def test_int8_is_read_and_made_as_the_library_does():
    tensors = stored("int8")

    read = load_matrix(FORMATS["int8"], tensors)
    made = load_matrix(OnLoad(method="bitsandbytes"), {"weight": weight_of("int8")[1:]})

    expected = tensors["weight"].double() * (tensors["SCB"] / 127).double()[:, None]
    assert torch.equal(widened(read), expected.float())
    assert torch.equal(made.codes, tensors["weight"])
    assert torch.equal(widened(made), widened(read))


@pytest.mark.parametrize("method", ["bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4"])
def test_a_row_of_zeros_stays_one(method):
    made = load_matrix(OnLoad(method=method), {"weight": torch.zeros(3, 64)})

    assert torch.equal(widened(made), torch.zeros(3, 64))


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_the_kernels_multiply_what_was_read(name):
    matrix = load_matrix(FORMATS[name], stored(name))
    x = torch.randn(33, SHAPES[name][1], generator=torch.Generator().manual_seed(1))

    y = linear.linear(x, linear.pack(matrix))

    torch.testing.assert_close(y, x @ widened(matrix).T, rtol=1e-4, atol=1e-5)
    assert torch.equal(y[7:8], linear.linear(x[7:8], linear.pack(matrix)))


@pytest.mark.parametrize(
    ("tensors", "suffix", "reason"),
    [
        ({**stored("nf4"), STATE: as_bytes("{")}, STATE, "JSON"),
        ({**stored("nf4"), STATE: as_bytes("[" * 4000)}, STATE, "JSON"),
        ({**stored("nf4"), STATE: torch.full((9,), 255, dtype=torch.uint8)}, STATE, "JSON"),
        (with_state(blocksize=0), STATE, "blocksize is 0"),
        (with_state(blocksize=96), STATE, "blocksize is 96"),
        (with_state(blocksize="64"), STATE, "JSON"),
        (with_state(blocksize=128), "weight.absmax", "18 blocks; blocksize makes it 9"),
        (with_state(quant_type="fp4"), STATE, "quant_type is 'fp4'"),
        (with_state(quant_type="os.system"), STATE, "JSON"),
        (with_state(shape=[6]), STATE, "JSON"),
        (with_state(shape=[-6, -192]), STATE, "shape is"),
        (with_state(shape=[6, 1 << 60]), STATE, "shape is"),
        (with_state(nested_blocksize=64), STATE, "nested_blocksize is 64"),
        (stored("nf4") | {"weight.absmax": torch.full((18,), torch.nan)}, "weight.absmax", "scale"),
        (stored("nf4") | {"weight.quant_map": torch.full((16,), torch.inf)}, "weight.quant_map",
         "scale"),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_is_refused_by_tensor(tensors, suffix, reason):
    with pytest.raises(BadTensorError, match=reason) as caught:
        load_matrix(FORMATS["nf4"], tensors)

    assert caught.value.suffix == suffix


@pytest.mark.parametrize(
    ("changes", "suffix"),
    [
        ({"weight.nested_absmax": torch.ones(3)}, "weight.nested_absmax"),
        ({"weight.nested_absmax": torch.tensor([1.0, torch.inf])}, "weight.nested_absmax"),
        ({"weight.nested_quant_map": torch.full((256,), torch.nan)}, "weight.nested_quant_map"),
    ],
)
def test_nested_statistics_that_cannot_be_are_refused_by_tensor(changes, suffix):
    with pytest.raises(BadTensorError) as caught:
        load_matrix(FORMATS["nested"], stored("nested") | changes)

    assert caught.value.suffix == suffix


def test_an_infinite_scale_of_int8_is_refused():
    tensors = stored("int8") | {"SCB": torch.full((4,), torch.inf)}

    with pytest.raises(BadTensorError, match="scale"):
        load_matrix(FORMATS["int8"], tensors)
