"""What each row of a step's scores asks of the sampler, as one table that goes to the device.

A table is [N, 16] float64: one upload a step, and every whole number in it is exact. Rows with
different settings share each launch.
"""

from __future__ import annotations

import enum

WIDTH = 16  # fields of a row


class Field(enum.IntEnum):
    """Columns of the table, with the value that switches each off."""

    SAMPLES = 0  # 0: the best token is taken
    COUNT_ROW = 1  # of the table of counts; -1: no penalties
    MASK_ROW = 2  # of the bitmasks; -1: none
    BIAS_START = 3  # of the row's part of the list of biases
    BIAS_END = 4  # past its end
    FORBIDS = 5  # 1: the ends of a sequence may not be chosen
    REPETITION = 6  # 1; from 1e-37 to 1e37
    FREQUENCY = 7  # 0
    PRESENCE = 8  # 0
    TEMPERATURE = 9  # 1; from 1e-37 to 1e37
    TOP_K = 10  # 0
    TOP_P = 11  # 1
    LOG_MIN_P = 12  # minus infinity
    UNIFORM = 13  # in [0, 1): what decides the draw
    TOP_N = 14  # 0: how many of the best are reported


OFF = [0, -1, -1, 0, 0, 0, 1, 0, 0, 1, 0, 1, -float("inf"), 0, 0, 0]
"""A row that asks for nothing: the likeliest token of the scores as they are."""
