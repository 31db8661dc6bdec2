"""Terms: functions of designs that read few of their axes, computed once for what these are.

Which axes a function reads is seen while it runs: it gets designs that note each parameter that
somebody asks for. What it never asks for cannot have changed its result, so the result holds for
every value of all other axes. If a later design makes it ask for more, the term grows by that axis
and starts again. So factoring needs no list of what a model reads, and cannot disagree with one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.sweeps.grid import Chosen, Grid, Rows, distinct

Array = NDArray[np.float64]
Function = Callable[[Designs], Mapping[str, Array]]

_WHOLE = 20_000  # combinations of which all are computed at the first need, and kept
_AT_ONCE = 4096  # designs, which bounds memory


@dataclass(frozen=True)
class Noted(Designs):
    """Designs that note which parameters are read."""

    read: set[str] = field(default_factory=set)

    def __getitem__(self, path: str) -> Array:
        """Return the column of a parameter, and note that it was read."""
        self.read.add(path)
        return super().__getitem__(path)

    def of(self, columns: Mapping[str, Array]) -> Designs:
        """Return designs of the same machine that note into the same place."""
        return Noted(self.base, columns, self.read)


class Term:
    """A function of the designs of a grid, with the axes that it reads.

    Parameters
    ----------
    grid : Grid
    function : callable
        Of D designs; named results of shape (D,) or (1,).
    unfelt : collection of str
        Axes that it reads but whose values are known to change nothing.

    Attributes
    ----------
    axes : frozenset of str
        Axes that it has been seen to read.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": (66.0, 132.0), "host.speed": (1.0, 2.0)}
    >>> grid = Grid(ns.load_arch("h200"), axes)
    >>> term = Term(grid, lambda designs: {"twice": 2 * designs["units.count"]})
    >>> found = term.at(Chosen(grid, np.arange(4)))
    >>> sorted(term.axes), found.tables["twice"].tolist(), found.which.tolist()
    (['units.count'], [132.0, 264.0], [0, 0, 1, 1])
    """

    def __init__(self, grid: Grid, function: Function, unfelt: Collection[str] = ()) -> None:
        self._grid, self._function, self._unfelt = grid, function, frozenset(unfelt)
        self._whole: dict[str, Array] | None = None
        self.axes = self._noted(grid.designs(np.array([0, len(grid) - 1])))[1]

    def at(self, chosen: Chosen) -> Looked:
        """Return the results of some designs, as tables and a place in them for each design."""
        while True:
            part = self._grid.part(self.axes)
            numbers = chosen.number_in(part)
            if len(part) > _WHOLE:
                few, numbers = distinct(numbers)
                tables = self._compute(few, part)
            else:
                tables = self._whole or self._compute(np.arange(len(part)), part)
                self._whole = tables
            if tables is not None:
                return Looked(tables, numbers)

    def _compute(self, numbers: Rows, part: Grid) -> dict[str, Array] | None:
        """Return results of designs of a part; None if they turn out to read more axes."""
        pieces = []
        for some in (numbers[i : i + _AT_ONCE] for i in range(0, len(numbers), _AT_ONCE)):
            found, read = self._noted(self._grid.of_part(part, some))
            if not read <= self.axes:
                self.axes |= read
                return None
            pieces.append({name: np.broadcast_to(x, len(some)) for name, x in found.items()})
        whole = {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
        # What all designs have in common needs no look-up.
        return {name: x[:1] if (x == x[0]).all() else x for name, x in whole.items()}

    def _noted(self, plain: Designs) -> tuple[Mapping[str, Array], frozenset[str]]:
        """Return results, and the axes that were read for them."""
        designs = Noted(plain.base, plain.columns)
        found = self._function(designs)
        return found, frozenset(designs.read & self._grid.axes.keys() - self._unfelt)


@dataclass(frozen=True)
class Looked:
    """Results of N designs: tables of shape (n,), and the place of each design, (N,)."""

    tables: Mapping[str, Array]
    which: NDArray[np.intp]

    def of(self, name: str, part: slice) -> Array:
        """Return one result of some of the designs; one for all where the table has one."""
        table = self.tables[name]
        return table if len(table) == 1 else table[self.which[part]]

    def all(self, part: slice) -> dict[str, Array]:
        """Return every result of some of the designs."""
        return {name: self.of(name, part) for name in self.tables}


def totals(looked: Collection[Looked], part: slice) -> dict[str, Array]:
    """Return the sums of results by name over several terms, of some of the designs."""
    found: dict[str, Array] = {}
    for one in looked:
        for name, values in one.all(part).items():
            found[name] = found[name] + values if name in found else values
    return found


def chunks(count: int, size: int) -> Iterator[slice]:
    """Yield pieces of a range that stay in cache."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
