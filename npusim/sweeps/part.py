"""A part of a space: designs of one machine and launch mode that do the same work."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.errors import InputError

Array = NDArray[np.float64]
Block = tuple[int, int, int, int]


@dataclass(frozen=True)
class Part:
    """Designs of one machine and launch mode that do one version of the work.

    Attributes
    ----------
    arch : Arch
        What all of them share.
    launch : str
        Launch mode.
    change : mapping of str to float
        What is changed of the workloads [SI].
    axes : mapping of str to tuple of float
        Values of a grid, the slowest axis first; numbers of the machine alone [SI].
    points : mapping of str to array, shape (N,), or None
        Columns of a list of designs [SI], None for a grid; there are no axes then.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": (66.0, 132.0), "host.speed": (1.0, 2.0, 4.0)}
    >>> part = Part(ns.load_arch("h200"), "graph", {}, axes)
    >>> len(part), part.designs(2, 5)["units.count"].tolist()
    (6, [66.0, 132.0, 132.0])
    """

    arch: Arch
    launch: str
    change: Mapping[str, float]
    axes: Mapping[str, tuple[float, ...]]
    points: Mapping[str, Array] | None = None

    def __len__(self) -> int:
        """Return the number of designs N."""
        if self.points:
            return len(next(iter(self.points.values())))
        return math.prod(len(values) for values in self.axes.values())

    def index(self, path: str, start: int, stop: int) -> NDArray[np.intp]:
        """Return which value of an axis of a grid the designs of some rows have.

        Parameters
        ----------
        path : str
            One of `axes`.
        start, stop : int
            Rows, the last one not included.

        Returns
        -------
        array of int, shape (stop - start,)
        """
        self._check(start, stop)
        sizes = {name: len(values) for name, values in self.axes.items()}
        names = list(sizes)
        stride = math.prod(sizes[name] for name in names[names.index(path) + 1 :])
        rows = np.arange(start, stop, dtype=np.int64)
        return (rows // stride % sizes[path]).astype(np.intp)

    def designs(self, start: int, stop: int) -> Designs:
        """Return the designs of some rows, and no others.

        Raises
        ------
        InputError
            Rows that are not there.
        """
        self._check(start, stop)
        if self.points is not None:
            return Designs(self.arch, {p: c[start:stop] for p, c in self.points.items()})
        columns = {
            path: np.asarray(values, dtype=np.float64)[self.index(path, start, stop)]
            for path, values in self.axes.items()
        }
        return Designs(self.arch, columns)

    def coordinates(self, paths: Iterable[str], start: int, stop: int) -> dict[str, Array]:
        """Return where designs of some rows lie on axes, those included that are off here.

        An axis that is off is at the value of the machine, or not-a-number where that has none.

        Returns
        -------
        mapping of str to array, shape (stop - start,)
        """
        designs = self.designs(start, stop)
        found = {}
        for path in paths:
            if path in designs.columns:
                found[path] = np.asarray(designs.columns[path])
            else:
                own = self.change.get(path, self.arch.values.get(path, math.nan))
                found[path] = np.full(stop - start, own, dtype=np.float64)
        return found

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= len(self):
            raise InputError(
                "no such rows", value=f"{start} to {stop}", allowed=f"0 to {len(self)}"
            )


class Blocks(Sequence[Block]):
    """Parts in blocks of rows: (number of the part, start, stop, row in the space of its first).

    Blocks are counted when they are asked for; a slice of them is as lazy. None spans two parts.

    Parameters
    ----------
    lengths : sequence of int
        Rows of each part.
    size : int
        Most rows of a block.

    Examples
    --------
    >>> list(Blocks([5, 2], 3))
    [(0, 0, 3, 0), (0, 3, 5, 3), (1, 0, 2, 5)]
    >>> list(Blocks([5, 2], 3)[::2])
    [(0, 0, 3, 0), (1, 0, 2, 5)]
    """

    def __init__(self, lengths: Sequence[int], size: int) -> None:
        if size < 1:
            raise InputError("not a size of a block", value=size, allowed="from 1")
        self.size = size
        self.lengths = tuple(lengths)
        self._rows = (0, *accumulate(self.lengths))  # before each part
        self._before = (0, *accumulate(-(-length // size) for length in self.lengths))  # blocks
        self._chosen = range(self._before[-1])

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, at: int) -> Block: ...
    @overload
    def __getitem__(self, at: slice) -> Blocks: ...
    def __getitem__(self, at: int | slice) -> Block | Blocks:
        if isinstance(at, slice):
            part = Blocks(self.lengths, self.size)
            part._chosen = self._chosen[at]
            return part
        number = self._chosen[at]
        part_number = bisect_right(self._before, number) - 1
        start = (number - self._before[part_number]) * self.size
        stop = min(start + self.size, self.lengths[part_number])
        return part_number, start, stop, self._rows[part_number] + start

    def __iter__(self) -> Iterator[Block]:
        return (self[i] for i in range(len(self)))
