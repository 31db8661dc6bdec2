"""How a figure of an operation goes with a size (batch, context), found by comparing traces.

Values v(i) at the traced sizes x(i) follow a law where they are constant, where v(i) / x(i) is
constant, or where three or more lie on one line; two values alone lie on a line in any case, which
says nothing. Between two sizes a figure is read off the line through both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.columns import COLUMNS
from npusim.workload import Workload

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

_EXACT = 1e-9  # of a value


class Points:
    """P traces of K operations at different sizes, and the two next to a target.

    Parameters
    ----------
    traces : sequence of Workload, length P
        The first says which operations there are.
    counterparts : sequence of array of int, length P - 1
        The operation of each further trace that each of them is, -1 for none.
    sizes : array, shape (P, S)
        Of each trace in each step, all different in a step.
    target : float

    Attributes
    ----------
    first : Workload
        The first trace.
    present : array of bool, shape (K,)
        Whether every trace has the operation.
    at : array of int, shape (K,)
        The trace whose size is the target, -1 for none.
    low, high : array of int, shape (K,)
        The traces next to the target: around it, or the outermost two on its side.
    within : array of bool, shape (K,)
        Whether the target lies between traces.
    """

    def __init__(
        self,
        traces: Sequence[Workload],
        counterparts: Sequence[Index],
        sizes: Array,
        target: float,
    ) -> None:
        self._traces, self._counterparts = traces, counterparts
        self.first = traces[0]
        self.present: Mask = np.all([at >= 0 for at in counterparts], axis=0)
        step = traces[0]["step"]
        order, ascending = np.argsort(sizes, axis=0), np.sort(sizes, axis=0)
        below = np.clip((ascending <= target).sum(axis=0) - 1, 0, len(sizes) - 2)
        steps = np.arange(sizes.shape[1])
        low, high = order[below, steps], order[below + 1, steps]
        found = sizes == target
        self.at: Index = np.where(found.any(axis=0), found.argmax(axis=0), -1)[step]
        self.low, self.high = low[step], high[step]
        self.within: Mask = ((ascending[0] <= target) & (target <= ascending[-1]))[step]
        self._part = ((target - sizes[low, steps]) / (sizes[high, steps] - sizes[low, steps]))[step]
        self._size = sizes[:, step]

    def values(self, column: str) -> NDArray[Any]:
        """Return a column in every trace, texts for labels; the first's where one has none.

        Shape (P, K).
        """
        first, *others = (column_of(w, column) for w in self._traces)
        pairs = zip(self._counterparts, others, strict=True)
        return np.stack([first, *(np.where(at >= 0, other[at], first) for at, other in pairs)])

    def of(self, values: NDArray[Any], which: Index) -> NDArray[Any]:
        """Return the value of one trace for each operation, shape (K,)."""
        return values[which, np.arange(values.shape[1])]

    def alike(self, values: NDArray[Any]) -> Mask:
        """Return where the traces next to the target agree, shape (K,)."""
        agree: Mask = np.asarray(self.of(values, self.low) == self.of(values, self.high), bool)
        return agree

    def line(self, values: Array) -> Array:
        """Return what the traces next to the target say of it, shape (K,)."""
        start, end = self.of(values, self.low), self.of(values, self.high)
        found: Array = np.maximum(start + (end - start) * self._part, 0.0)
        return found

    def is_law(self, values: Array) -> Mask:
        """Return where the values are constant, in proportion, or three or more on one line."""
        x, v = self._size, values
        law = equal(v, v[:1]) | equal(v * x[0], v[0] * x)
        if len(v) > 2:
            law |= equal(v, v[0] + (v[1] - v[0]) / (x[1] - x[0]) * (x - x[0]))
        return law


def column_of(w: Workload, column: str) -> NDArray[Any]:
    """Return a column, as texts if it holds labels, shape (K,)."""
    return w.text(column) if COLUMNS[column].type == "label" else w[column]


def equal(values: NDArray[Any], others: NDArray[Any]) -> Mask:
    """Return where two sets of values of several traces agree in all of these, shape (K,)."""
    same = values == others if values.dtype == object else np.isclose(values, others, _EXACT, 0.0)
    agree: Mask = np.all(np.asarray(same, dtype=bool), axis=0)
    return agree
