"""What each axis does alone, as a figure: a tornado.

Draws data into an Axes and returns it, as the functions of `npusim.plots` do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from npusim import units
from npusim.merit import MERITS
from npusim.parameters import PARAMETERS

# The low end of an axis and the high one: light and plain, dark and hatched.
_LOW: dict[str, Any] = {"color": "#9ECAE9", "edgecolor": "#222222", "linewidth": 0.6}
_HIGH: dict[str, Any] = {"color": "#0072B2", "edgecolor": "white", "hatch": "////",
                         "linewidth": 0.6}  # fmt: skip
_INK = "#222222"
_STILL = 1e-9  # relative swing: less of it is rounding


def tornado(ax: Axes, table: pd.DataFrame, objective: str = "wall_s", most: int = 15) -> Axes:
    """Draw how far each axis alone moves a figure, the widest on top.

    Parameters
    ----------
    ax : Axes
        The figure in its unit; one bar an axis from its value at the lowest to that at the highest
        value of the axis, both written at the ends, and a line at the nominal design.
    table : DataFrame
        As `npusim.search.tornado.tornado` returns it.
    objective : str
        Which figure it is.
    most : int
        Axes drawn at most; axes without effect are named in one line.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> table = pd.DataFrame({"axis": ["units.count"], "low_value": 60.0, "high_value": 80.0,
    ...                       "nominal_value": 70.0, "low": 2e-3, "nominal": 1.8e-3,
    ...                       "high": 1.7e-3, "swing": 3e-4})
    >>> ax = tornado(Figure().subplots(), table)
    >>> ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]
    ('wall_s [ms]', ['units.count'])
    """
    size = table["nominal"].abs().max()
    moving = table[table["swing"] > _STILL * size].head(most)
    scale, unit = _unit(objective, table)
    nominal = float(table["nominal"].iloc[0]) / scale
    for row, (_, axis) in enumerate(moving.iloc[::-1].iterrows()):
        _bar(ax, row, axis, nominal, scale)
    ax.axvline(nominal, color=_INK, linewidth=1)
    ends = np.concatenate([moving["low"], moving["high"], table["nominal"].iloc[:1]]) / scale
    pad = 0.22 * float(np.ptp(ends)) or abs(nominal) or 1.0  # room for the values at the ends
    ax.set_xlim(ends.min() - pad, ends.max() + pad)
    ax.set(ylim=(-0.6, max(len(moving), 1) - 0.4), yticks=range(len(moving)),
           yticklabels=moving["axis"].iloc[::-1], xlabel=f"{objective} [{unit}]")  # fmt: skip
    ax.grid(axis="y", visible=False)
    for label, look in (("lowest value of the axis", _LOW), ("highest", _HIGH)):
        ax.barh([0], [0], label=label, **look)
    ax.plot([], [], color=_INK, linewidth=1, label=f"nominal: {nominal:.4g} {unit}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4, ncols=3, fontsize=8)
    still = [str(axis) for axis in table["axis"] if axis not in set(moving["axis"])]
    if still:
        what = "no effect" if len(moving) < most else "not drawn"
        ax.set_title(f"{what}: {', '.join(still)}", loc="left", fontsize=8, wrap=True)
    return ax


def _bar(ax: Axes, row: int, axis: pd.Series[Any], nominal: float, scale: float) -> None:
    unit = PARAMETERS[axis["axis"]].unit if axis["axis"] in PARAMETERS else "1"
    ends = {end: axis[end] / scale for end in ("low", "high")}
    same_side = (ends["low"] - nominal) * (ends["high"] - nominal) > 0
    nearer = min(ends, key=lambda end: abs(ends[end] - nominal))
    for end, look in (("low", _LOW), ("high", _HIGH)):
        # Two bars on one side would hide each other: they share the row.
        shift, height = (0.0, 0.6) if not same_side else (0.16 if end == "low" else -0.16, 0.3)
        ax.barh(row + shift, ends[end] - nominal, left=nominal, height=height, **look)
        side = np.sign(ends[end] - nominal) or -np.sign(ends["high" if end == "low" else "low"]
                                                        - nominal)  # fmt: skip
        small = same_side and end == nearer
        ax.annotate(units.show(float(axis[f"{end}_value"]), unit), (ends[end], row + shift),
                    xytext=(4 * side, 0), textcoords="offset points", va="center",
                    ha="left" if side > 0 else "right",
                    fontsize="x-small" if small else "small")  # fmt: skip


def _unit(objective: str, table: pd.DataFrame) -> tuple[float, str]:
    """Return factor and name of the unit in which a figure reads best."""
    name = objective.partition("[")[0]
    if name in MERITS and MERITS[name] not in ("s", "J"):
        return 1.0, MERITS[name]
    unit = MERITS.get(name) or ("s" if name.endswith("_s") else "J" if name.endswith("_j") else "")
    if not unit:
        return 1.0, "1"
    shown = units.show(float(table["nominal"].iloc[0]), unit).partition(" ")[2]
    return units.parse(f"1 {shown}", unit), shown
