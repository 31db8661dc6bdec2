"""Constraints of a sweep: which designs may be compared at all.

A designer has so much area, power or money: ``most`` and ``least`` bound a figure. A fair
comparison holds one equal, as that of another machine or of the nominal one: ``like`` (iso-area,
iso-power, iso-bandwidth, iso-cost), within a share of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError

NOMINAL = "nominal"


@dataclass(frozen=True)
class Constraint:
    """A bound on one figure of a design.

    Attributes
    ----------
    column : str
        Axis or figure of merit (`npusim.merit.MERITS`).
    least, most : float or None
        Bounds [SI, or the unit in the column's name].
    like : str
        Machine that has the same, ``nominal`` for that of the sweep; empty for none.
    within : float
        How far from it a design may be, as a share of it.
    """

    column: str
    least: float | None = None
    most: float | None = None
    like: str = ""
    within: float = 0.0

    def bounds(self, references: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:
        """Return the lowest and the highest value that a design may have.

        Parameters
        ----------
        references : mapping of str to mapping of str to float
            Figures of each machine that a constraint is like.

        Raises
        ------
        InputError
            The machine does not have the figure.

        Examples
        --------
        >>> Constraint("area_mm2", like="h100", within=0.05).bounds({"h100": {"area_mm2": 800.0}})
        (760.0, 840.0)
        """
        low = -np.inf if self.least is None else self.least
        high = np.inf if self.most is None else self.most
        if self.like:
            value = float(references[self.like].get(self.column, np.nan))
            if np.isnan(value):
                raise InputError("the machine does not have it", file=self.like, value=self.column)
            low = max(low, value - abs(value) * self.within)
            high = min(high, value + abs(value) * self.within)
        return float(low), float(high)


@dataclass(frozen=True)
class Limit:
    """A bound on one figure of a design, in numbers.

    Attributes
    ----------
    column : str
    low, high : float
    """

    column: str
    low: float
    high: float

    def met(self, table: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which designs keep it, shape (D,).

        Raises
        ------
        InputError
            The designs do not have the figure.

        Examples
        --------
        >>> Limit("power_w", 0.0, 250.0).met({"power_w": np.array([100.0, 300.0])}).tolist()
        [True, False]
        """
        if self.column not in table:
            raise InputError("the designs do not have it", place=f"constraints.{self.column}",
                             allowed=", ".join(_numbers(table)),
                             hint="tokens need a workload that decodes, energy and area a machine "
                             "that gives technology.node")  # fmt: skip
        values = np.asarray(table[self.column], dtype=float)
        near = 1e-9 * max(abs(v) for v in (self.low, self.high, 0.0) if np.isfinite(v))
        kept: NDArray[np.bool_] = (values >= self.low - near) & (values <= self.high + near)
        return kept


def limits_of(
    constraints: Sequence[Constraint], references: Mapping[str, Mapping[str, float]]
) -> tuple[Limit, ...]:
    """Return constraints with what they compare with put in.

    Raises
    ------
    InputError
        A machine to compare with does not have the figure.
    """
    return tuple(Limit(one.column, *one.bounds(references)) for one in constraints)


def allowed(
    table: pd.DataFrame,
    constraints: Sequence[Constraint],
    references: Mapping[str, Mapping[str, float]],
) -> NDArray[np.bool_]:
    """Return which designs meet all constraints, shape (D,).

    Raises
    ------
    InputError
        No design does, or none has a figure.

    Examples
    --------
    >>> t = pd.DataFrame({"power_w": [100.0, 200.0, 300.0]})
    >>> allowed(t, [Constraint("power_w", most=250.0)], {}).tolist()
    [True, True, False]
    """
    columns = {str(name): table[name].to_numpy() for name in table}
    limits = limits_of(constraints, references)
    refuse_none([columns], limits)
    fits = np.ones(len(table), dtype=bool)
    for limit in limits:
        fits &= limit.met(columns)
    return fits


def refuse_none(
    blocks: Iterable[Mapping[str, NDArray[Any]]], limits: Sequence[Limit], hint: str = ""
) -> None:
    """Refuse limits that no design of some blocks keeps.

    Raises
    ------
    InputError
        Which limit leaves none of those that keep the ones before it, and what these have.
    """
    left, spans = np.zeros(len(limits), dtype=np.int64), np.full((len(limits), 2), np.nan)
    for columns in blocks:
        fits = np.ones(len(next(iter(columns.values()))), dtype=bool)
        for i, limit in enumerate(limits):
            values, before = columns.get(limit.column), fits
            fits = before & limit.met(columns)
            left[i] += fits.sum()
            if values is not None and before.any():
                ends = np.nanmin(values[before]), np.nanmax(values[before])
                spans[i] = np.fmin(spans[i, 0], ends[0]), np.fmax(spans[i, 1], ends[1])
    for limit, count, (low, high) in zip(limits, left, spans, strict=True):
        if not count:
            raise InputError(
                "no design meets this and the constraints before it",
                place=f"constraints.{limit.column}", value=f"{limit.low:.6g} to {limit.high:.6g}",
                allowed=f"designs left have {low:.6g} to {high:.6g}", hint=hint,
            )  # fmt: skip


def _numbers(table: Mapping[str, NDArray[Any]]) -> list[str]:
    return [c for c, values in table.items() if values.dtype.kind == "f" and "[" not in c]
