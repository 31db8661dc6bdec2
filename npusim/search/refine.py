"""A front made better: what lies one step away from its designs on every axis.

For each design of the front all designs are evaluated that differ in one axis by one step: the next
lower and higher value of numbers, every other name, launch mode and machine. What none beats joins
the front; its own neighbours are asked next, until the front stands still or the budget is spent.
Of designs that tie in all objectives one is asked first, the others
at the end.

Then, if halvings are asked for, new values are put half-way between each value of the front and its
neighbours, on axes of the machine whose values may be any number (in the logarithm on axes that
are ranges with a ``log`` scale), and the front is walked again on the finer grid.

This is Pareto local search: L. Paquete, M. Chiarandini, T. Stützle, "Pareto local optimum sets in
the biobjective traveling salesman problem", in "Metaheuristics for Multiobjective Optimisation",
2004, doi:10.1007/978-3-642-17144-4.

Limits: one axis at a time: what two changes together would gain, and neither alone, is not found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from npusim.axes import ARCH, LAUNCH, discrete
from npusim.search.choices import Choices, named
from npusim.search.limits import Limits
from npusim.search.nsga2 import Found, judged
from npusim.search.points import Points, Progress
from npusim.transforms import TRANSFORMABLE

Point = dict[str, str | float]
Values = dict[str, list[float]]


def refine(
    found: Found,
    choices: Choices,
    points: Points,
    limits: Limits | None = None,
    budget: int = 1000,
    halvings: int = 0,
    progress: Progress | None = None,
) -> Found:
    """Return a front that no step on one axis betters, as far as the budget goes.

    Parameters
    ----------
    found : Found
        Where to start.
    choices : Choices
        The values that designs may have.
    points : Points
        What evaluates designs; what it knows already costs nothing.
    limits : Limits, optional
        What designs must keep.
    budget : int
        New designs to evaluate at most.
    halvings : int
        How often steps are halved.
    progress : callable, optional
        Called with (new designs done, budget).

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": [33, 66, 99, 132]}
    >>> choices = Choices.of(ns.Space(ns.load_arch("h200"), axes, ["graph"]))
    >>> points = Points(ns.load_arch("h200"), list(axes),
    ...                 [ns.load_workload("paddleocr_vl_decode")])
    >>> _ = points(choices.points(np.array([[0, 0, 2]])))
    >>> start = judged(points, ["wall_s", "units.count"], Limits())
    >>> refine(start, choices, points).front["units.count"].tolist()
    [132.0, 99.0, 66.0, 33.0]
    """
    limits = limits or Limits()
    values: Values = {path: list(axis.values) for path, axis in choices.axes.items()}
    left = budget
    for halving in range(halvings + 1):
        if halving:
            _halve(values, found.front, choices)
        asked = _Asked(found.objectives, _columns(choices))
        while left > 0 and (rows := asked.next(found.front)):
            near = (p for row in rows for p in _near(row, values, choices))
            wanted = choices.counting(pd.DataFrame(list(near), columns=_columns(choices)))
            wanted = wanted.drop_duplicates()
            fresh = wanted[~np.array(points.known(wanted), dtype=bool)].iloc[:left]
            left -= len(fresh)
            if len(fresh):
                points(fresh)
            found = judged(points, found.objectives, limits)
            if progress is not None:
                progress(budget - left, budget)
    return found


class _Asked:
    """Says which designs of a front to ask next for their neighbours.

    Those that differ in objectives come first. Ties come when nothing else is left: what is
    better may lie behind several designs that are as good.
    """

    def __init__(self, objectives: Sequence[str], columns: Sequence[str]) -> None:
        self._objectives, self._columns = list(objectives), list(columns)
        self._figures: set[tuple[object, ...]] = set()
        self._designs: set[tuple[object, ...]] = set()

    def next(self, front: pd.DataFrame) -> list[dict[str, Any]]:
        """Return the rows to ask, and take them as asked."""
        rows = front.to_dict("records")
        figures = [tuple(row[name] for name in self._objectives) for row in rows]
        designs = [tuple(str(row.get(name)) for name in self._columns) for row in rows]
        new = {f: i for i, f in reversed(list(enumerate(figures))) if f not in self._figures}
        chosen = sorted(new.values()) or [
            i for i, design in enumerate(designs) if design not in self._designs
        ]
        self._figures.update(figures[i] for i in chosen)
        self._designs.update(designs[i] for i in chosen)
        return [{str(k): v for k, v in rows[i].items()} for i in chosen]


def _columns(choices: Choices) -> list[str]:
    return [ARCH, LAUNCH, *choices.axes]


def _near(row: Mapping[str, str | float], values: Values, choices: Choices) -> Iterator[Point]:
    """Yield designs that differ from one in one thing, by one step."""
    arch = row.get(ARCH, choices.archs[0])
    here: Point = {ARCH: arch, LAUNCH: row[LAUNCH]}
    for path, those in values.items():
        own = float(row[path])
        # An axis that is off has no value; one that comes on starts in the middle.
        here[path] = own if own in those else _middle(those)
    for name, others in ((ARCH, choices.archs), (LAUNCH, choices.launch)):
        yield from ({**here, name: other} for other in others if other != here[name])
    for path, those in values.items():
        own = float(here[path])
        steps = those if named(path) else _beside(those, own)
        yield from ({**here, path: value} for value in steps if value != own)


def _middle(values: Sequence[float]) -> float:
    return values[(len(values) - 1) // 2]


def _beside(values: Sequence[float], own: float) -> list[float]:
    """Return the next lower and the next higher value."""
    at = values.index(own)
    return [values[i] for i in (at - 1, at + 1) if 0 <= i < len(values)]


def _halve(values: Values, front: pd.DataFrame, choices: Choices) -> None:
    """Put values half-way between those of a front and their neighbours."""
    for path, those in values.items():
        if path in TRANSFORMABLE or discrete(path):
            continue
        log = choices.axes[path].scale == "log"
        coarse = list(those)
        for own in {float(v) for v in front[path]} & set(coarse):
            for other in _beside(coarse, own):
                half = math.sqrt(own * other) if log else (own + other) / 2
                if half not in those:
                    those.append(half)
        those.sort()
