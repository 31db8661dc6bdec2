"""Constraints of a sweep: which designs may be compared at all.

A designer has so much area, power or money: ``most`` and ``least`` bound a figure. A fair
comparison holds one equal, as that of another machine or of the nominal one: ``like`` (iso-area,
iso-power, iso-bandwidth, iso-cost), within a share of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    fits = np.ones(len(table), dtype=bool)
    for one in constraints:
        if one.column not in table:
            raise InputError("the designs do not have it", place=f"constraints.{one.column}",
                             allowed=", ".join(_numbers(table)),
                             hint="tokens need a workload that decodes, energy and area a machine "
                             "that gives technology.node")  # fmt: skip
        low, high = one.bounds(references)
        values, before = table[one.column].to_numpy(float), fits
        near = 1e-9 * max(abs(v) for v in (low, high, 0.0) if np.isfinite(v))
        fits = before & (values >= low - near) & (values <= high + near)
        if not fits.any():
            left = values[before]
            raise InputError(
                "no design meets this and the constraints before it",
                place=f"constraints.{one.column}", value=f"{low:.6g} to {high:.6g}",
                allowed=f"designs left have {left.min():.6g} to {left.max():.6g}",
            )  # fmt: skip
    return fits


def _numbers(table: pd.DataFrame) -> list[str]:
    return [str(c) for c in table.columns if table[c].dtype.kind == "f" and "[" not in str(c)]
