"""Axes that hang on others, as grids that share no design.

Every axis with conditions cuts the grids made so far: where a parent is outside of its condition
the axis is off, where all are inside it multiplies the rest. Each cut is along the values of one
parent, so that what comes of a grid are grids, and none of their designs is in two of them. What
hangs on the same conditions cuts once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from npusim.axes import Axis, parents_first
from npusim.errors import InputError

MOST_GRIDS = 100_000

# Values of each axis that is on, and of what is no axis (launch modes, the machine).
Grid = dict[str, Sequence[float] | Sequence[str]]


def disjoint(
    axes: Mapping[str, Axis], fixed: Mapping[str, Sequence[str]], off: Collection[str] = ()
) -> list[Grid]:
    """Return full grids that hold every design once.

    Parameters
    ----------
    axes : mapping of str to Axis
    fixed : mapping of str to sequence of str
        Launch modes and the machine.
    off : collection of str
        Axes that never count here.

    Raises
    ------
    InputError
        Conditions that cut the space in more than `MOST_GRIDS` grids.

    Examples
    --------
    >>> from npusim.axes import Condition
    >>> unit = {"gemv.count": Condition(least=1.0)}
    >>> axes = {"gemv.count": Axis((0.0, 70.0)), "gemv.width": Axis((32.0, 64.0), when=unit)}
    >>> for grid in disjoint(axes, {}):
    ...     print(grid)
    {'gemv.count': (0.0,)}
    {'gemv.count': (70.0,), 'gemv.width': (32.0, 64.0)}
    """
    always = {p: axis.values for p, axis in axes.items() if not axis.when and p not in off}
    grids: list[Grid] = [{**fixed, **always}]
    for path in parents_first(axes):
        if axes[path].when and path not in off:
            grids = [part for grid in grids for part in _cut(grid, path, axes[path])]
            if len(grids) > MOST_GRIDS:
                raise InputError("conditions cut the space in too many grids", place=path,
                                 allowed=f"up to {MOST_GRIDS}",
                                 hint="let axes share conditions, or draw samples")  # fmt: skip
    return grids


def _cut(grid: Grid, path: str, axis: Axis) -> Iterator[Grid]:
    """Yield the parts of a grid in which an axis is off, and the one in which it counts."""
    for parent, condition in axis.when.items():
        if parent not in grid:  # a parent that is off switches off what hangs on it
            yield grid
            return
        values = grid[parent]
        outside = [v for v in values if not condition.holds(v)]
        if outside:
            yield {**grid, parent: tuple(outside)}  # type: ignore[dict-item]
        inside = [v for v in values if condition.holds(v)]
        if not inside:
            return
        grid = {**grid, parent: tuple(inside)}  # type: ignore[dict-item]
    yield {**grid, path: axis.values}
