"""Which of 128 experts get a token, and the pairs of a step by expert."""

from __future__ import annotations

import torch

from tgi_cli.kernels import expert_routing
from tgi_cli.kernels.expert_routing import kernel, reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn

_NUM_EXPERTS, _TOP_K, _ROWS = 128, 8, 64


def _route(num_tokens: int, device: str) -> Call:
    logits = randn(num_tokens, _NUM_EXPERTS, device=device)
    weights = torch.empty(num_tokens, _TOP_K, device=device)
    experts = torch.empty(num_tokens, _TOP_K, dtype=torch.int32, device=device)

    def run() -> tuple[torch.Tensor, ...]:
        kernel.route(logits, weights, experts, renormalise=True)
        return (weights,)

    return Call(run, lambda: reference.route(logits.double(), _TOP_K, renormalise=True)[:1])


def _sort(num_tokens: int, device: str) -> Call:
    if device == "meta":
        experts = torch.empty(num_tokens, _TOP_K, dtype=torch.int32, device=device)
    else:
        logits = randn(num_tokens, _NUM_EXPERTS)
        experts = reference.route(logits, _TOP_K, renormalise=True)[1].to(device)

    def run() -> tuple[torch.Tensor, ...]:
        tiles = expert_routing.sort_by_expert(experts, _NUM_EXPERTS, _ROWS)
        there = tiles.experts >= 0
        rows = tiles.pairs.view(-1, _ROWS) * there[:, None]  # what no tile has isn't written
        return rows.float(), tiles.experts.float()

    def expect() -> tuple[torch.Tensor, ...]:
        pairs, of_tiles = reference.sort_by_expert(experts.flatten().tolist(), _ROWS)
        num_pairs = experts.numel()
        num_tiles = expert_routing.max_tiles(num_pairs, _NUM_EXPERTS, _ROWS)
        rows = torch.zeros(num_tiles, _ROWS)
        rows[: len(pairs)] = num_pairs
        for row, each in zip(rows, pairs, strict=False):
            row[: len(each)] = torch.tensor(each)
        of_all = torch.full((num_tiles,), -1.0)
        of_all[: len(of_tiles)] = torch.tensor(of_tiles)
        return rows.to(device), of_all.to(device)

    return Call(run, expect)


def _workload(name: str, num_tokens: int) -> Workload:
    num_pairs = num_tokens * _TOP_K
    is_sort = name == "sort"
    return Workload(
        op="expert_routing",
        shape=f"{name} {num_tokens} to {_NUM_EXPERTS}",
        make=lambda device: (_sort if is_sort else _route)(num_tokens, device),
        cost=Cost(8 * num_pairs if is_sort else num_tokens * _NUM_EXPERTS * 4 + 8 * num_pairs),
        num_programs=_NUM_EXPERTS if is_sort else num_tokens,
        bytes_in_flight=4096 if is_sort else 4 * _NUM_EXPERTS,
        expected_fraction=0.05,
        reason="a launch costs more than the bytes",
        tolerance=4.0,
    )


WORKLOADS = [_workload(name, num_tokens) for name in ("route", "sort") for num_tokens in (16, 4096)]
