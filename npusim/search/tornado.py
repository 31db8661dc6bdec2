"""What each axis does alone: from its lowest to its highest value, all others nominal.

Limits: one axis at a time, and the two ends of it: what axes do together, and what lies between
the ends, is not seen (`npusim.search.sensitivity` sees it).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.axes import ARCH, LAUNCH, Axis
from npusim.errors import InputError
from npusim.search.choices import named
from npusim.search.points import Points
from npusim.sweeps.front import figures


def tornado(
    points: Points,
    axes: Mapping[str, Axis],
    nominal: Mapping[str, float],
    launch: str,
    objective: str,
    arch: str = "",
) -> pd.DataFrame:
    """Move each axis alone to its ends.

    Parameters
    ----------
    points : Points
        What evaluates designs.
    axes : mapping of str to Axis
        Axes with two values or more are moved; of names all values are asked, and those count that
        give the least and the most.
    nominal : mapping of str to float
        Value of each axis while others move [SI]; not-a-number leaves the workloads as they are.
    launch : str
        Launch mode.
    objective : str
        Column of the figure.
    arch : str, optional
        Machine, where `points` knows several.

    Returns
    -------
    DataFrame
        One row an axis, the widest swing first: ``axis``, ``low_value``, ``nominal_value`` and
        ``high_value`` [SI], the figures there ``low``, ``nominal`` and ``high`` [of the objective],
        and ``swing``, the size of high - low.

    Raises
    ------
    InputError
        No axis to move, or a figure that designs do not have.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": Axis((66.0, 132.0)), "matrix.fp8.rate": Axis((2048.0, 8192.0))}
    >>> points = Points(ns.load_arch("h200"), list(axes), [ns.load_workload("paddleocr_vl_decode")])
    >>> found = tornado(points, axes, {"units.count": 132.0, "matrix.fp8.rate": 8192.0}, "graph",
    ...                 "wall_s")
    >>> found["axis"].tolist(), float(found["swing"][1])
    (['units.count', 'matrix.fp8.rate'], 0.0)
    """
    moved = {p: a.values for p, a in axes.items() if len(a.values) > 1}  # noqa: PD011
    if not moved:
        raise InputError("no axis with two values to move")
    asked = {p: list(v) if named(p) else [min(v), max(v)] for p, v in moved.items()}
    base: dict[str, str | float] = {ARCH: arch, LAUNCH: launch, **nominal}
    if not arch:
        del base[ARCH]
    rows = [base, *({**base, path: v} for path, values in asked.items() for v in values)]
    table = points(pd.DataFrame(rows))
    values_of = figures(table, [objective])[:, 0]
    found, start = [], 1
    for path, values in asked.items():
        own = values_of[start : start + len(values)]
        start += len(values)
        low, high = _extremes(own) if named(path) else (0, -1)
        found.append({
            "axis": path, "low_value": values[low], "nominal_value": table[path].iloc[0],
            "high_value": values[high], "low": own[low], "nominal": values_of[0], "high": own[high],
            "swing": abs(own[high] - own[low]),
        })  # fmt: skip
    table = pd.DataFrame(found)
    order = np.argsort(-table["swing"].to_numpy(), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _extremes(values: NDArray[np.float64]) -> tuple[int, int]:
    """Return where the least and the most are; the first and the last if all are equal."""
    if np.ptp(values) == 0:
        return 0, -1
    return int(np.argmin(values)), int(np.argmax(values))
