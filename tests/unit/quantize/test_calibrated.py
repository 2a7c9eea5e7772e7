"""Whole layers: what a solver makes of them, by family and method."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from tests.unit.quantize.layers import FAMILIES, random_inputs, random_layer, tiny_config
from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.quantize.forward import LayerForward
from tgi_cli.runtime.quantize.grid import Grid
from tgi_cli.runtime.quantize.methods import Method, layer_solver
from tgi_cli.runtime.quantize.solver import PROJECTIONS, Activations, LayerSolution

METHODS: tuple[Method, ...] = get_args(Method)
CALIBRATED: tuple[Method, ...] = ("awq", "gptq", "awq+gptq")
GRID = Grid(4, 16, symmetric=False)


def solve(
    method: Method,
    config: ModelConfig,
    grid: Grid = GRID,
    layer: dict[str, torch.Tensor] | None = None,
    inputs: torch.Tensor | None = None,
) -> LayerSolution:
    forward = LayerForward(config, 13)
    solver = layer_solver(method, grid, forward)
    inputs = random_inputs(config, num=40) if inputs is None else inputs
    activations = Activations(inputs, keeps_original=solver.needs_original)
    layer = random_layer(config) if layer is None else layer
    return solver.solve_layer(layer, activations, lambda name: None)


def output_error(config: ModelConfig, solution: LayerSolution) -> float:
    """Mean squared error of the layer's output on inputs that it wasn't calibrated on."""
    forward = LayerForward(config, 13)
    inputs = random_inputs(config, seed=1, num=20)
    expected = forward(random_layer(config), inputs)
    return float((forward(solution.dequantized(), inputs) - expected).square().mean())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", CALIBRATED)
def test_a_calibrated_layer_is_nearer_to_the_original_than_a_rounded_one(
    family: str, method: Method
) -> None:
    config = FAMILIES[family]

    solved = output_error(config, solve(method, config))

    assert solved < 0.9 * output_error(config, solve("rtn", config))


@pytest.mark.parametrize("family", FAMILIES)
def test_folds_leave_the_float_model_what_it_was(family: str) -> None:
    config = FAMILIES[family]
    inputs = random_inputs(config, seed=2)
    forward = LayerForward(config, 13)

    # 8 bits and a scale for each number: what rounding leaves is fp16's half a unit of the scale.
    solution = solve("awq", config, Grid(8, 1, symmetric=False))

    expected = forward(random_layer(config), inputs)
    error = forward(solution.dequantized(), inputs) - expected
    assert error.square().mean() < (2e-3) ** 2 * expected.square().mean()
    norm = solution.tensors["input_layernorm.weight"]
    assert not torch.equal(norm, random_layer(config)["input_layernorm.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_and_biases_survive_being_stored(dtype: torch.dtype) -> None:
    config = FAMILIES["llama, all biases"]
    layer = {name: tensor.to(dtype).float() for name, tensor in random_layer(config).items()}

    solution = solve("awq+gptq", config, layer=layer)

    for name, tensor in solution.tensors.items():
        assert torch.equal(tensor.to(dtype).float(), tensor), name


@pytest.mark.parametrize("method", METHODS)
def test_every_projection_is_told_of_and_other_tensors_are_kept(method: Method) -> None:
    config = FAMILIES["qwen3, head norms"]
    layer, told = random_layer(config), []
    solver = layer_solver(method, GRID, forward := LayerForward(config, 13))
    activations = Activations(random_inputs(config), keeps_original=solver.needs_original)

    solution = solver.solve_layer(layer, activations, told.append)

    assert tuple(told) == PROJECTIONS == tuple(solution.solutions)
    assert set(solution.dequantized()) == set(layer)
    assert solution.tensors["self_attn.q_norm.weight"].equal(layer["self_attn.q_norm.weight"])
    assert forward.index == 0


@pytest.mark.parametrize("method", CALIBRATED)
def test_activations_are_left_alone_and_the_same_bits_come_out_again(method: Method) -> None:
    config = tiny_config()
    inputs = random_inputs(config)
    before = inputs.clone()

    first = solve(method, config, inputs=inputs).dequantized()
    second = solve(method, config, inputs=inputs).dequantized()

    assert torch.equal(inputs, before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_solution_says_what_it_lost() -> None:
    config = tiny_config()

    gptq = solve("gptq", config).solutions["mlp.down_proj"]
    awq = solve("awq", config).solutions["mlp.down_proj"]

    assert gptq.loss is not None
    assert gptq.relative_loss is not None
    assert 0 < gptq.relative_loss < 0.1
    assert gptq.damping == 0.05
    assert awq.damping is None


def test_an_earlier_error_is_made_up_for() -> None:
    config = tiny_config()
    forward = LayerForward(config, 13)
    original = random_inputs(config, num=40)
    mistake = 0.2 * torch.randn(48, 48, generator=torch.Generator().manual_seed(5)) / 48**0.5
    solver = layer_solver("gptq", GRID, forward)
    activations = Activations(original + original @ mistake, keeps_original=True)
    blind = solver.solve_layer(random_layer(config), activations, lambda name: None)
    activations.original = original

    aimed = solver.solve_layer(random_layer(config), activations, lambda name: None)

    fresh = random_inputs(config, seed=9)
    wanted = forward(random_layer(config), fresh)
    errors = [
        float((forward(solution.dequantized(), fresh + fresh @ mistake) - wanted).square().mean())
        for solution in (aimed, blind)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(method: Method, bad: float) -> None:
    config = tiny_config()
    layer = random_layer(config)
    layer["mlp.up_proj.weight"][3, 4] = bad

    with pytest.raises(CorruptModelError, match="not every number is finite"):
        solve(method, config, layer=layer)


@pytest.mark.parametrize("method", CALIBRATED)
def test_activations_that_are_not_finite_are_named_by_layer(method: Method) -> None:
    config = tiny_config()
    inputs = random_inputs(config)
    inputs[1, 2, 3] = float("nan")

    with pytest.raises(CorruptModelError, match=r"Layer 0, inputs of self_attn\.q_proj"):
        solve(method, config, inputs=inputs)


def test_eight_bits_per_channel_have_one_scale_a_row() -> None:
    config = tiny_config()

    linear = solve("int8", config, Grid(8, -1, symmetric=True)).solutions["mlp.down_proj"].linear

    assert linear.scales.shape == (48, 1)
    assert (linear.zeros == 128).all()
    error = linear.dequantize() - random_layer(config)["mlp.down_proj.weight"]
    assert (error.abs() <= 0.57 * linear.scales.float()).all()
