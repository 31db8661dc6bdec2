"""Which axes of the memory hierarchy some operations feel: those that change what serves them.

A cache that is large enough for a window at every value of an axis serves it all the same. What an
operation does not feel is not multiplied out for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npusim.models import hierarchy
from npusim.models.hierarchy import shares
from npusim.reuse import DATA
from npusim.sweeps.grid import Grid
from npusim.workload import Operations

_MOST = 20_000  # combinations of the hierarchy's axes that are looked at
_NOTHING = 1e-12  # share of bytes


def unfelt(operations: Operations, grid: Grid) -> list[frozenset[str]]:
    """Return for each operation the axes of the hierarchy that it does not feel, length U."""
    part = grid.part(hierarchy.READS)
    paths = list(part.axes)
    used = operations.reuse.used()
    if not paths or not len(used) or len(part) > _MOST:
        return [frozenset()] * len(operations)
    felt = _of_windows(operations, part, paths)
    place = np.zeros(len(operations.reuse.windows), dtype=np.intp)
    place[used] = np.arange(len(used))
    every = np.zeros((len(operations), len(paths)), dtype=bool)
    for data in DATA:
        some = operations.reuse.share[data] > 0
        every |= (felt[place[operations.reuse.window[data]]] & some[:, :, None]).any(axis=1)
    return [frozenset(p for p, feels in zip(paths, row, strict=True) if not feels) for row in every]


def _of_windows(operations: Operations, part: Grid, paths: Sequence[str]) -> NDArray[np.bool_]:
    """Return which windows feel which axes, shape (windows, axes)."""
    designs = part.designs(np.arange(len(part)))
    sizes = [len(part.axes[path]) for path in paths]
    tables = shares(operations, designs)
    felt = np.zeros((len(tables[0]), len(paths)), dtype=bool)
    for table in tables:
        every = np.broadcast_to(table, (len(table), len(part))).reshape(-1, *sizes)
        for i in range(len(paths)):
            spread = np.ptp(every, axis=1 + i).reshape(len(table), -1)
            felt[:, i] |= spread.max(axis=1) > _NOTHING
    return felt
