"""What a program does on the designs of a grid: sums over its operations, as terms.

Totals of a step are sums over operations, and each operation reads few of the axes of a grid.
Operations that read the same axes make one term (`npusim.sweeps.term`): its sums are computed once
for each combination of these, and a design looks them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.energy import work_done
from npusim.models.energy import has_energy
from npusim.models.kernel import kernel_cost
from npusim.sweeps.felt import unfelt
from npusim.sweeps.grid import Grid
from npusim.sweeps.term import Term
from npusim.traffic import traffic
from npusim.workload import Workload

Array = NDArray[np.float64]

KIND, MOVED = "kind.", "moved."


class Counted:
    """The distinct operations of a workload, with how often a step runs each.

    Attributes
    ----------
    operations : Operations
        U distinct operations.
    steps : int
    modelled : array, shape (U,)
        How often each is run by all steps and its time is modelled.
    often : array, shape (U,)
        How often a step runs each.
    carried : array, shape (U,)
        Time of each that is carried over as measured, in all steps [s].
    """

    def __init__(self, w: Workload) -> None:
        rows, inverse = w.unique()
        known = w.classified
        self.operations, self.steps = w.operations(rows), len(w.steps)
        self.modelled = np.bincount(inverse[known], minlength=len(rows)).astype(float)
        self.often = np.bincount(inverse, minlength=len(rows)) / self.steps
        self.carried = np.bincount(inverse[~known], w["duration_s"][~known], len(rows))

    def classes(self, grid: Grid) -> Iterator[tuple[NDArray[np.intp], frozenset[str]]]:
        """Yield operations that are alike in what they read, and the axes that they do not feel."""
        o = self.operations
        found: dict[tuple[str, str, str, frozenset[str]], list[int]] = {}
        apart = any(path.startswith("library.") for path in grid.axes)
        routines = o.routine if apart else np.full(len(o), "")
        keys = zip(o.kind, o.dtype, routines, unfelt(o, grid), strict=True)
        for i, key in enumerate(keys):
            found.setdefault(key, []).append(i)
        for key, rows in found.items():
            yield np.array(rows, dtype=np.intp), key[-1]


def terms(counted: Counted, grid: Grid) -> list[Term]:
    """Return the sums of `work` as terms of a grid: operations that read the same axes together."""
    alike: dict[tuple[frozenset[str], frozenset[str]], list[NDArray[np.intp]]] = {}
    for rows, without in counted.classes(grid):
        axes = Term(grid, partial(work, counted, rows), without).axes
        alike.setdefault((axes, without), []).append(rows)
    return [
        Term(grid, partial(work, counted, np.sort(np.concatenate(rows))), without)
        for (_, without), rows in alike.items()
    ]


def work(counted: Counted, rows: NDArray[np.intp], designs: Designs) -> dict[str, Array]:
    """Return sums over some operations, (D,) each.

    ``kind.KIND`` is the modelled time of a kind in all steps [s]; with them, where the machine says
    what energy it takes, what `npusim.energy.work_done` says of a step.
    """
    operations = counted.operations.take(rows)
    modelled, often = counted.modelled[rows], counted.often[rows]
    cost = kernel_cost(operations, designs)
    seconds = modelled[:, None] * cost.time
    found = {
        KIND + kind: np.add.reduce(seconds[(operations.kind == kind) & (modelled > 0)], axis=0)
        for kind in dict.fromkeys(operations.kind[modelled > 0].tolist())
    }
    if has_energy(designs):
        took = (seconds + counted.carried[rows, None]) / counted.steps
        found |= work_done(operations, often, took, designs, cost)
    return found


def moved(w: Workload, designs: Designs) -> Mapping[str, Array]:
    """Return the bytes of a step by level and class, ``moved.LEVEL.CLASS``, (D,) each [B]."""
    return {
        f"{MOVED}{level}.{group}": values
        for level, groups in traffic(w, designs).items()
        for group, values in groups.items()
    }
