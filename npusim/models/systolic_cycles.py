"""Cycles of a systolic array: operands march through it in step, one element further each cycle.

A product of (m x k) by (k x n) lies on an array of R rows and C columns in folds, one of its three
lengths along the rows, one along the columns; the third streams through (T of a fold):

    dataflow   what stays   along rows   along columns   streams
    weight     weights      k            n               m
    output     results      m            n               k
    input      inputs       k            m               n

A fold whose stationary operand is there takes T + R + C - 2 cycles from the first element that
enters to the last result that leaves: the corner is R - 1 + C - 1 steps away. Weights and inputs
must come first, a row a cycle: R more. Results that stay need none; those of a column are ready
one cycle after the other and leave by a wire of that column.

    single registers: folds x (R + T + R + C - 2)            (without the first R for output)
    double registers: (R + T + R + C - 2) + (folds - 1) x max(T, R)

With double registers the next stationary operand comes in while one fold streams (of results: the
last ones leave meanwhile), so that folds follow without draining; R cycles go in any case by the
one wire of a column. With single ones a fold starts when the one before has left the array. Edges
are padded: a fold takes the whole array, whatever part of it is used.

Source: SCALE-Sim, A. Samajdar et al., ISPASS 2020, doi:10.1109/ISPASS48437.2020.00016 (single
registers; version 3 counts the same, cycle by cycle); double registers as the weights of a TPU, N.
Jouppi et al., ISCA 2017, doi:10.1145/3079856.3080246.

Left out: rows and columns that are skipped where a fold does not use them, loading that starts
while a single register drains, stalls (transfers are elsewhere).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.units import CHOICES

Array = NDArray[np.float64]

PARAMETERS = ()  # reads none itself

OUTPUT, INPUT = (float(CHOICES["dataflow"].index(flow)) for flow in ("output", "input"))
_DOUBLE = float(CHOICES["registers"].index("double"))


def by_flow(flow: Array, weight: Array, output: Array, inputs: Array) -> Array:
    """Return, of three arrays, the one of each design's dataflow."""
    chosen: Array = np.where(flow == OUTPUT, output, np.where(flow == INPUT, inputs, weight))
    return chosen


def folds(m: Array, n: Array, k: Array, rows: Array, columns: Array, flow: Array) -> Array:
    """Return how many folds a product takes.

    Examples
    --------
    >>> m, n, k, eight = (np.array([x]) for x in (5.0, 20.0, 30.0, 8.0))
    >>> [folds(m, n, k, eight, eight, np.array([f])).item() for f in (0.0, 1.0, 2.0)]
    [12.0, 3.0, 4.0]
    """
    down, across = np.where(flow == OUTPUT, m, k), np.where(flow == INPUT, m, n)
    count: Array = np.ceil(down / rows) * np.ceil(across / columns)
    return count


def streamed(m: Array, n: Array, k: Array, flow: Array) -> Array:
    """Return how many elements of a fold stream past each row."""
    return by_flow(flow, m, k, n)


def cycles(
    count: Array, stream: Array, rows: Array, columns: Array, flow: Array, registers: Array,
    chains: Array,
) -> Array:  # fmt: skip
    """Return the cycles that an array takes for its folds.

    Parameters
    ----------
    count : array
        Folds, one after the other.
    stream : array
        Elements of each that stream past a row, >= 1.
    rows, columns : array
        The array.
    flow, registers : array
        Places in `CHOICES` of ``dataflow`` and ``registers``.
    chains : array
        Into how many runs without draining they fall, 1 to `count`; double registers only.

    Examples
    --------
    Three folds of 5 elements on 4 x 6: 4 + 5 + 8 each; or two that the first one hides in part.

    >>> one = np.ones(1)
    >>> [cycles(3 * one, 5 * one, 4 * one, 6 * one, 0 * one, r * one, one).item() for r in (0, 1)]
    [51.0, 27.0]
    """
    fill = np.where(flow == OUTPUT, 0.0, rows)
    alone = fill + stream + rows + columns - 2.0
    chained = chains * alone + (count - chains) * np.maximum(stream, rows)
    total: Array = np.where(registers == _DOUBLE, chained, count * alone)
    return total
