"""Designs one by one: any values of any axes, each evaluated once.

A sweep evaluates a grid. A search asks for points, some of them again: they are grouped by what
they share (machine, launch mode and changes of the workloads), each group is evaluated as a block,
and what is known is not evaluated again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.axes import ARCH, LAUNCH
from npusim.errors import InputError
from npusim.models.launch import LAUNCHES
from npusim.sweeps.evaluate import evaluate, with_changes
from npusim.transforms import present, split
from npusim.workload import Workload

Progress = Callable[[int, int], None]
Key = tuple[Hashable, ...]

_BLOCK = 4096


class Points:
    """Evaluates designs of one or several machines on workloads, and remembers them.

    Parameters
    ----------
    archs : Arch or sequence of Arch
        Machines.
    axes : sequence of str
        Dotted paths in which designs differ, of the machine or of the workloads (``workload.*``).
    workloads : sequence of Workload
    counts : sequence of float, optional
        How many steps of each make the whole; one by default.

    Attributes
    ----------
    table : DataFrame
        Every distinct design so far, in the order in which they were evaluated; columns as
        `npusim.sweeps.run.sweep` returns them.

    Raises
    ------
    InputError
        No workload.

    Examples
    --------
    >>> import npusim as ns
    >>> asked = Points(ns.load_arch("h200"), ["units.count"],
    ...                [ns.load_workload("paddleocr_vl_decode")])
    >>> table = asked(pd.DataFrame({"launch": "graph", "units.count": [132.0, 66.0, 132.0]}))
    >>> bool(table["wall_s"][0] == table["wall_s"][2] < table["wall_s"][1]), len(asked)
    (True, 2)
    """

    def __init__(
        self,
        archs: Arch | Sequence[Arch],
        axes: Sequence[str],
        workloads: Sequence[Workload],
        counts: Sequence[float] | None = None,
    ) -> None:
        if not workloads:
            raise InputError("no workload to evaluate designs on")
        each = [archs] if isinstance(archs, Arch) else list(archs)
        self.axes = tuple(axes)
        self.table = pd.DataFrame()
        self._archs = {arch.name: arch for arch in each}
        self._workloads, self._counts = tuple(workloads), counts
        self._row: dict[Key, int] = {}
        self._changed: dict[Key, list[Workload]] = {}
        self._of_workload = tuple(split(dict.fromkeys(axes))[1])
        self._own = {path: self._present(path) for path in self._of_workload}

    def __len__(self) -> int:
        """Return how many distinct designs were evaluated."""
        return len(self._row)

    def known(self, points: pd.DataFrame) -> list[bool]:
        """Return which points need no evaluation; see `__call__` for them."""
        return [key in self._row for key in self._keys(points)]

    def __call__(self, points: pd.DataFrame, progress: Progress | None = None) -> pd.DataFrame:
        """Return what designs do, one row a point in the order given.

        Parameters
        ----------
        points : DataFrame
            ``launch``, ``arch`` where there are several machines, and a column for each axis [SI].
            Not-a-number leaves the machine or the workloads as they are on this axis.
        progress : callable, optional
            Called with (new designs done, new designs in all).

        Raises
        ------
        InputError
            A missing column, a value out of bounds, an unknown machine or launch mode.
        """
        keys = self._keys(points)
        fresh = list(dict.fromkeys(key for key in keys if key not in self._row))
        if fresh:
            self._evaluate(fresh, progress)
        return self.table.iloc[[self._row[key] for key in keys]].reset_index(drop=True)

    def _keys(self, points: pd.DataFrame) -> list[Key]:
        """Return what tells each point from others: machine, launch mode and values."""
        one = next(iter(self._archs)) if len(self._archs) == 1 else None
        wanted = (LAUNCH, *self.axes) if one else (ARCH, LAUNCH, *self.axes)
        missing = [name for name in wanted if name not in points]
        if missing:
            raise InputError("points do not say", value=", ".join(missing))
        names = points[ARCH].tolist() if ARCH in points else [one] * len(points)
        modes = points[LAUNCH].tolist()
        for what, found, known in (
            ("machine", names, self._archs),
            ("launch mode", modes, LAUNCHES),
        ):
            wrong = next((name for name in dict.fromkeys(found) if name not in known), None)
            if wrong is not None:
                raise InputError(f"unknown {what}", value=wrong, allowed=", ".join(known))
        columns: list[list[Any]] = [names, modes]
        for path in self.axes:
            try:
                column = points[path].to_numpy(float).tolist()
            except (TypeError, ValueError) as error:
                raise InputError(f"not a column of numbers: {error}", place=path,
                                 hint="values are in SI units") from None  # fmt: skip
            columns.append([None if math.isnan(value) else value for value in column])
        return list(zip(*columns, strict=True))

    def _evaluate(self, fresh: Sequence[Key], progress: Progress | None) -> None:
        """Evaluate points that are not known, grouped by what a block of designs must share."""
        groups: dict[Key, list[Key]] = {}
        for key in fresh:
            on = tuple(value is not None for value in key[2:])
            work = tuple(value for path, value in zip(self.axes, key[2:], strict=True)
                         if path in self._of_workload)  # fmt: skip
            groups.setdefault((*key[:2], on, work), []).append(key)
        parts, done = [], 0
        for group in groups.values():
            for start in range(0, len(group), _BLOCK):
                block = group[start : start + _BLOCK]
                parts.append(self._block(block))
                done += len(block)
                if progress is not None:
                    progress(done, len(fresh))
        for key in (key for group in groups.values() for key in group):
            self._row[key] = len(self._row)
        both = [self.table, *parts] if len(self.table) else parts
        self.table = pd.concat(both, ignore_index=True)

    def _block(self, keys: Sequence[Key]) -> pd.DataFrame:
        """Return what designs of one machine do that share launch mode and workloads."""
        arch, launch = self._archs[str(keys[0][0])], str(keys[0][1])
        columns = {
            path: np.array(column, dtype=float)
            for path, column in zip(self.axes, list(zip(*keys, strict=True))[2:], strict=True)
            if column[0] is not None
        }
        machine, work = split(columns)
        change = {path: float(column[0]) for path, column in work.items()}
        which = tuple(change.items())
        if which not in self._changed:
            self._changed[which] = with_changes(self._workloads, change)
        found = evaluate(Designs(arch, machine), self._changed[which], launch, counts=self._counts)
        if not machine:
            found = found.iloc[np.zeros(len(keys), dtype=int)].reset_index(drop=True)
        placed: dict[str, str | float | NDArray[np.float64]] = {LAUNCH: launch}
        if len(self._archs) > 1:
            placed = {ARCH: arch.name, **placed}
        for path in self.axes:
            own = self._own.get(path, arch.values.get(path, np.nan))  # noqa: PD011
            placed[path] = columns.get(path, own)
        head = pd.DataFrame(placed, index=range(len(keys)))
        return pd.concat([head, found.drop(columns=[c for c in head if c in found])], axis=1)

    def _present(self, path: str) -> float:
        """Return what the workloads have on an axis as they are, if they agree in it."""
        found = {value for w in self._workloads if (value := present(w, path)) is not None}
        return found.pop() if len(found) == 1 else np.nan
