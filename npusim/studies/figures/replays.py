"""Designs of a figure as lots of the bench, and the same designs compared draw by draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.bands import QUANTILES
from npusim.errors import InputError
from npusim.studies.bench import Case, Lot
from npusim.studies.claim import Claim, Compare, Rule, Side
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import BATCH
from npusim.studies.pairs import Pair, pairs, split_rows
from npusim.transforms import TRANSFORMABLE, split

Array = NDArray[np.float64]

DRAWS = 32  # of a point of a figure: its ends are less sure than those of a claim


def compared(answer: Answer, figure: str, design: Side, against: Side, case: Case) -> Pair:
    """Return two designs on a case, as a claim would compare them.

    What the study was run with (`--set`) is set here, too.

    Raises
    ------
    InputError
        A parameter that no model reads.
    """
    test = Compare(figure, design, against, case.work, (case.model,), (case.batch,),
                   (case.launch,))  # fmt: skip
    claim = Claim("figure", "", "", Rule(), test)
    machine, work = split(dict(answer.settings))
    return pairs(claim, answer.question, machine, work)[0]


def one(answer: Answer, design: Side, case: Case) -> Lot:
    """Return one design on a case."""
    return compared(answer, "wall_s", design, design, case).lots({}, 1)[0]


def moved(design: Side, case: Case, point: Mapping[str, float]) -> tuple[Side, Case]:
    """Return a design and a case with some parameters set; the batch is one of the case.

    Examples
    --------
    >>> case = Case("paddleocr_vl", "decode", 1, "queue")
    >>> side, other = moved(Side(), case, {"units.count": 66.0, "workload.batch": 8.0})
    >>> dict(side.machine), dict(side.work), other.batch
    ({'units.count': 66.0}, {}, 8)
    """
    machine, work = split({path: value for path, value in point.items() if path != BATCH})
    batch = int(point.get(BATCH, case.batch))
    return (replace(design, machine={**design.machine, **machine}, work={**design.work, **work}),
            replace(case, batch=batch))  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A design over a grid of parameters: as few lots as its workloads allow.

    Attributes
    ----------
    lots : list of Lot
    points : DataFrame
        Values of the parameters, a row a design, in the order of the tables of the lots.
    """

    lots: list[Lot]
    points: pd.DataFrame

    def figures(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return the tables of the lots below each other, beside the points."""
        found = pd.concat(tables, ignore_index=True)
        return pd.concat([self.points, found.drop(columns=self.points.columns, errors="ignore")],
                         axis=1)  # fmt: skip


def grid(answer: Answer, design: Side, case: Case, axes: Mapping[str, Array]) -> Grid:
    """Return a design over all combinations of some parameters [SI]."""
    if not axes:
        return Grid([one(answer, design, case)], pd.DataFrame(index=range(1)))
    names = sorted(axes, key=lambda path: path not in TRANSFORMABLE)
    mesh = np.meshgrid(*(axes[path] for path in names), indexing="ij")
    points = pd.DataFrame({path: m.ravel() for path, m in zip(names, mesh, strict=True)})
    of_work = [path for path in names if path in TRANSFORMABLE]
    lots = []
    groups = points.groupby(of_work, sort=False) if of_work else [((), points)]
    for key, rows in groups:
        values = np.array(key, dtype=float).tolist()
        side, other = moved(design, case, dict(zip(of_work, values, strict=True)))
        lot = one(answer, side, other)
        own = {path: rows[path].to_numpy() for path in names if path not in of_work}
        columns = {path: np.full(len(rows), column[0]) for path, column in lot.columns.items()}
        lots.append(replace(lot, columns={**columns, **own}, size=len(rows)))
    return Grid(lots, points)


def figure_of(table: pd.DataFrame, name: str, place: str) -> Array:
    """Return a figure of designs, (N,).

    Raises
    ------
    InputError
        A figure that the machine or the work does not have.
    """
    if name not in table or table[name].isna().any():
        raise InputError("the machine or work has no such figure", place=place, value=name)
    return table[name].to_numpy(dtype=float)


def banded(pair: Pair, tables: Sequence[pd.DataFrame]) -> tuple[float, float, float]:
    """Return the ratio of a pair that was drawn, and the ends of its band, which hold it."""
    first, rest = split_rows(tables)
    value = float(pair.ratio(first)[0])
    drawn = pair.perturbed_ratio(rest)
    low, high = (float(q) for q in np.quantile(drawn, (QUANTILES[0], QUANTILES[-1])))
    return value, min(low, value), max(high, value)
