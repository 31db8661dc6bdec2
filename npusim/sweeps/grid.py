"""A full grid of designs by number: mixed radix, the first axis slowest."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_TABLE = 2_000_000  # numbers in a row of which a mark each is kept while rows are looked up


@dataclass(frozen=True)
class Grid:
    """Every combination of the values of some axes of a machine, numbered from 0.

    Attributes
    ----------
    base : Arch
        What all designs share.
    axes : mapping of str to sequence of float
        Values of each axis [SI], the slowest first.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": (66.0, 132.0), "host.speed": (1.0, 2.0, 3.0)}
    >>> grid = Grid(ns.load_arch("h200"), axes)
    >>> len(grid), grid.designs(np.array([4]))["units.count"].tolist()
    (6, [132.0])
    """

    base: Arch
    axes: Mapping[str, Sequence[float]]

    def __len__(self) -> int:
        """Return the number of designs."""
        return math.prod(len(values) for values in self.axes.values())

    def digits(self, rows: Rows) -> dict[str, Rows]:
        """Return which value of each axis some designs have, (N,) each."""
        found, stride = {}, len(self)
        for path, values in self.axes.items():
            stride //= len(values)
            found[path] = rows // stride % len(values)
        return found

    def designs(self, rows: Rows) -> Designs:
        """Return designs by number."""
        return Chosen(self, rows).designs()

    def part(self, paths: Collection[str]) -> Grid:
        """Return the grid over some of the axes."""
        return Grid(self.base, {p: v for p, v in self.axes.items() if p in paths})

    def of_part(self, part: Grid, numbers: Rows) -> Designs:
        """Return the designs of a part of the axes; all others have their first value."""
        digits = part.digits(numbers)
        columns = {
            path: np.asarray(values, dtype=float)[digits[path]]
            if path in part.axes
            else np.full(len(numbers), float(values[0]))
            for path, values in self.axes.items()
        }
        return Designs(self.base, columns)


class Chosen:
    """Some designs of a grid: N numbers, and which value of each axis they have."""

    def __init__(self, grid: Grid, rows: Rows) -> None:
        self._grid, self.rows, self._digits = grid, rows, grid.digits(rows)

    def __len__(self) -> int:
        """Return the number of designs."""
        return len(self.rows)

    def of(self, at: slice | NDArray[np.intp]) -> Chosen:
        """Return some of them."""
        few = Chosen.__new__(Chosen)
        few._grid, few.rows = self._grid, self.rows[at]
        few._digits = {path: digits[at] for path, digits in self._digits.items()}
        return few

    def designs(self) -> Designs:
        """Return them as designs."""
        axes = self._grid.axes
        columns = {p: np.asarray(axes[p], dtype=float)[d] for p, d in self._digits.items()}
        return Designs(self._grid.base, columns)

    def number_in(self, part: Grid) -> Rows:
        """Return their numbers in the grid over some of the axes, (N,)."""
        number = np.zeros(len(self.rows), dtype=np.int64)
        for path, values in part.axes.items():
            number *= len(values)
            number += self._digits[path]
        return number


def distinct(numbers: Rows) -> tuple[Rows, NDArray[np.intp]]:
    """Return the distinct of some numbers (at least one), sorted, and for each which it is.

    Examples
    --------
    >>> few, which = distinct(np.array([7, 3, 7]))
    >>> few.tolist(), which.tolist()
    ([3, 7], [1, 0, 1])
    """
    low = int(numbers.min())
    span = int(numbers.max()) + 1 - low
    if span > _TABLE:
        few, which = np.unique(numbers, return_inverse=True)
        return few, which.reshape(-1)
    there = np.zeros(span, dtype=bool)
    there[numbers - low] = True
    few = np.flatnonzero(there)
    place = np.zeros(span, dtype=np.intp)
    place[few] = np.arange(len(few))
    return few + low, place[numbers - low]
