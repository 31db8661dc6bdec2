"""Rows of a space by number: each part evaluated by what differs where that can be done.

A row does not depend on which rows are asked for with it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.sweeps.evaluate import evaluate, with_changes
from npusim.sweeps.factored import Factored, refused
from npusim.sweeps.grid import Grid
from npusim.sweeps.part import Part
from npusim.sweeps.space import Space
from npusim.transforms import present, split
from npusim.workload import Workload

Column = NDArray[Any]

_FEWEST = 1024  # designs of a part for which finding out what differs pays
_AT_ONCE = 4096  # designs that are evaluated one by one, which bounds memory
_KEPT = 2  # parts whose terms are kept


class Evaluator:
    """Evaluates rows of a space.

    Parameters
    ----------
    space : Space
    workloads : sequence of Workload
    counts : sequence of float, optional
        How many steps of each make the whole; one by default.
    mode : {"model", "transfer"}

    Raises
    ------
    InputError
        No workload.

    Examples
    --------
    >>> import npusim as ns
    >>> space = Space(ns.load_arch("h200"), {"units.count": [66, 132]}, ["graph"])
    >>> found = Evaluator(space, [ns.load_workload("paddleocr_vl_decode")]).columns(1, 2)
    >>> found["units.count"].tolist(), len(found["wall_s"])
    ([132.0], 1)
    """

    def __init__(
        self, space: Space, workloads: Sequence[Workload], counts: Sequence[float] | None = None,
        mode: str = "model",
    ) -> None:  # fmt: skip
        if not workloads:
            raise InputError("no workload to sweep")
        for w in workloads:
            if not isinstance(w, Workload):
                raise InputError("not a workload", value=w, hint="ns.load_workload(name)")
        self.space, self.workloads, self.mode = space, list(workloads), mode
        self.counts = list(counts or [1.0] * len(workloads))
        self.unchanged = {path: _present(workloads, path) for path in split(space.axes)[1]}
        self._first = list(accumulate((len(p) for p in space.parts), initial=0))
        self._work: OrderedDict[int, _Work] = OrderedDict()

    def columns(self, start: int, stop: int) -> dict[str, Column]:
        """Return the columns of some rows: ``arch`` and ``launch``, axes, totals; (N,) each."""
        made = [self._of_part(*piece) for piece in self._numbered(start, stop)]
        if len(made) == 1:
            return made[0]
        names = dict.fromkeys(name for one in made for name in one)
        sizes = [len(one["launch"]) for one in made]
        return {
            name: np.concatenate([one.get(name, np.full(n, np.nan))
                                  for one, n in zip(made, sizes, strict=True)])
            for name in names
        }  # fmt: skip

    def is_quick(self) -> bool:
        """Return whether nearly all rows are evaluated by what differs."""
        slow = (len(p) for p in self.space.parts if not self._is_grid(p) or self._refused(p))
        return sum(slow) * 10 < len(self.space)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
        """Yield the parts that hold some rows, each with the first and the end of its own."""
        for number, first, end in self._numbered(start, stop):
            yield self.space.parts[number], first, end

    def _numbered(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        number = bisect_right(self._first, start) - 1
        while start < stop:
            first, end = self._first[number], min(self._first[number + 1], stop)
            if start < end:
                yield number, start - first, end - first
            start, number = max(start, end), number + 1

    def _of_part(self, number: int, start: int, stop: int) -> dict[str, Column]:
        part, names = self.space.parts[number], {}
        count = stop - start
        if self.space.beside:
            names["arch"] = np.full(count, part.arch.name, dtype=object)
        names["launch"] = np.full(count, part.launch, dtype=object)
        found = self._work_of(number).columns(start, stop)
        where = {path: found.pop(path) for path in self.space.axes if path in found}
        if len(where) < len(self.space.axes):
            where = part.coordinates(self.space.axes, start, stop)
        for path, value in self.unchanged.items():
            if path not in part.change:
                where[path] = np.full(count, value)
        return {**names, **{path: where[path] for path in self.space.axes}, **found}

    def _work_of(self, number: int) -> _Work:
        if number not in self._work:
            part = self.space.parts[number]
            changed = with_changes(self.workloads, part.change) if part.change else self.workloads
            quick = self._is_grid(part) and not self._refused(part)
            self._work[number] = _Work(part, changed, self.counts, self.mode, quick)
            while len(self._work) > _KEPT:
                self._work.popitem(last=False)
        self._work.move_to_end(number)
        return self._work[number]

    def _is_grid(self, part: Part) -> bool:
        return part.points is None and len(part) >= _FEWEST and self.mode == "model"

    def _refused(self, part: Part) -> str:
        return refused(Grid(part.arch, part.axes), self.workloads, part.launch)


class _Work:
    """A part with the work that its designs do."""

    def __init__(
        self, part: Part, workloads: Sequence[Workload], counts: Sequence[float], mode: str,
        quick: bool,
    ) -> None:  # fmt: skip
        self._part, self._workloads, self._counts, self._mode = part, workloads, counts, mode
        self._factored: Factored | None = None
        if quick:
            grid = Grid(part.arch, part.axes)
            self._factored = Factored(grid, workloads, part.launch, counts)

    def columns(self, start: int, stop: int) -> dict[str, Column]:
        """Return the totals of some rows of the part."""
        if self._factored is not None:
            return self._factored.columns(np.arange(start, stop, dtype=np.int64))
        pieces = [self._alone(i, min(i + _AT_ONCE, stop)) for i in range(start, stop, _AT_ONCE)]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _alone(self, start: int, stop: int) -> dict[str, Column]:
        designs, launch = self._part.designs(start, stop), self._part.launch
        table = evaluate(designs, self._workloads, launch, self._mode, self._counts)
        return {str(name): table[name].to_numpy() for name in table if name != "launch"}


def _present(workloads: Sequence[Workload], path: str) -> float:
    """Return what an axis of the workload is as traced, NaN if workloads differ in it."""
    found = {value for w in workloads if (value := present(w, path)) is not None}
    return found.pop() if len(found) == 1 else float("nan")
