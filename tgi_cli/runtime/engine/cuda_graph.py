"""Decode steps as graphs: what a step launches is recorded once and then launched as one.

A graph is for one number of rows; a step runs in the smallest that holds it, filled up with rows
that read no context and write nowhere. A row's bits don't depend on its company, so they are those
of the step as it is. Whatever no graph holds runs launch by launch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tgi_cli.runtime.platforms.gpu import Gpu, Graph

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


class DecodeGraphs:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._graphs: dict[int, Graph] = {}  # by number of rows, ascending

    @property
    def sizes(self) -> list[int]:
        return list(self._graphs)

    def capture(self, sizes: Iterable[int], prepare: Callable[[int], Callable[[], Tensor]]) -> None:
        """Record a step of each size, the largest first: the others fit into its memory.

        `prepare` uploads a step of so many rows and returns what computes it, from fixed addresses.
        Sizes that can't be recorded are told in the log, once, and their steps run without.

        Raises:
            RuntimeError: the device can't be used any more.
        """
        pending = sorted(set(sizes), reverse=True)
        captured: dict[int, Graph] = {}
        left_out: list[int] = []
        reason = ""
        while pending:
            size = pending.pop(0)
            try:
                compute = prepare(size)
                compute()  # compiles, and takes what is taken once
                captured[size] = self._gpu.capture(compute)
            except RuntimeError as exc:
                if not self._gpu.is_usable():
                    raise
                reason = _first_line(exc)
                left_out.append(size)
                if not self._gpu.is_out_of_memory(exc):  # so it will be with the others
                    left_out += pending
                    pending = []
            if left_out:
                self._gpu.empty_cache()
        self._graphs = dict(sorted(captured.items()))
        if captured:
            _log.info("event=cuda_graphs_captured sizes=%s", self.sizes)
        if left_out:
            _log.warning(
                "event=cuda_graphs_left_out sizes=%s captured=%s reason=%s",
                sorted(left_out),
                self.sizes,
                reason,
            )

    def smallest_for(self, num_rows: int) -> tuple[int, Graph] | None:
        """Return the smallest graph that holds a decode step of `num_rows`, and its size."""
        for size, graph in self._graphs.items():
            if size >= num_rows:
                return size, graph
        return None


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n")[0]
