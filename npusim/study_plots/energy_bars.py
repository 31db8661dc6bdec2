"""Where the energy of a step goes, design by design: stacked bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from npusim.errors import InputError
from npusim.study_plots.axis import scale
from npusim.study_plots.placing import axes_width, text_width
from npusim.study_plots.rows import numbers
from npusim.study_plots.style import RULE, SMALL, below, fill

_MOST = 9
_ROOM = 1.18  # of the axis for the longest bar: totals stand behind them
_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}


def energy(ax: Axes, table: pd.DataFrame, bands: pd.DataFrame | None = None) -> Axes:
    """Draw the energy of a step by block, one bar a design.

    Parameters
    ----------
    ax : Axes
        Energy of a step in its unit; one row a design, from the top.
    table : DataFrame
        Joules: one row a design (its index is what it is called), one column a block; what a
        design does not have is not-a-number. Blocks stand in order of their energy over all
        designs; the smallest beyond nine are drawn as one.
    bands : DataFrame, optional
        ``low`` and ``high`` end of each total, in the same order [J].

    Raises
    ------
    InputError
        Nothing to draw, a negative energy, or a total outside of its band.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> table = pd.DataFrame({"dram": [0.2, 0.1], "matrix": [0.1, 0.1]}, index=["H200", "NPU"])
    >>> ax = energy(Figure().subplots(), table)
    >>> ax.get_xlabel(), [t.get_text() for t in ax.texts if "mJ" in t.get_text()]
    ('energy of a step [mJ]', ['300 mJ', '200 mJ'])
    """
    drawn = _merged(table)
    joules = drawn.to_numpy(dtype=float)
    total = joules.sum(axis=1)
    low, high = _ends(total, bands)
    factor, unit = scale(high, "J")
    rows = np.arange(len(drawn))
    left, longest = np.zeros(len(drawn)), _ROOM * high.max() / factor
    across = axes_width(ax, [str(name) for name in drawn.index])
    for i, block in enumerate(drawn.columns):
        width = joules[:, i] / factor
        ax.barh(rows, width, left=left, height=0.58, label=str(block), **fill(i))
        for row in rows[width / longest > _share(width, across)]:
            ax.text(left[row] + width[row] / 2, row, f"{width[row]:.3g}", ha="center", va="center",
                    fontsize=SMALL - 0.5, bbox=dict(_BOX), zorder=4)  # fmt: skip
        left = left + width
    if bands is not None:
        error = np.array([total - low, high - total]) / factor
        ax.errorbar(total / factor, rows + 0.38, xerr=error, fmt="none", ecolor=RULE, capsize=2.5,
                    elinewidth=1.2, zorder=5, label="band of the total")  # fmt: skip
    for row in rows:
        ax.annotate(f"{total[row] / factor:.3g} {unit}", (high[row] / factor, row), xytext=(5, 0),
                    textcoords="offset points", va="center", weight="bold",
                    fontsize=SMALL + 0.5)  # fmt: skip
    ax.set_yticks(rows, drawn.index.astype(str), parse_math=False)
    ax.set(xlabel=f"energy of a step [{unit}]", xlim=(0, longest),
           ylim=(len(rows) - 0.45, -0.5))  # fmt: skip
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    below(ax, 6, handlelength=2.2, handleheight=1.2)
    return ax


def _share(width: np.ndarray, across: float) -> np.ndarray:
    """Return which share of an axes the number of each piece takes, with some room around it."""
    return np.array([text_width(f"{w:.3g}_", SMALL - 0.5) for w in width]) / across


def _merged(table: pd.DataFrame) -> pd.DataFrame:
    """Return blocks in order of their energy, the smallest as one."""
    known = table.fillna(0.0)
    numbers(known, list(known.columns))
    if not len(known.columns) or not (known.to_numpy(dtype=float) >= 0).all():
        raise InputError("not an energy", hint="joules of each block, not below zero")
    order = known.sum().sort_values(ascending=False, kind="stable").index
    if len(order) <= _MOST:
        return known[order]
    rest = order[_MOST:]
    return known[order[:_MOST]].assign(**{f"{len(rest)} others": known[rest].sum(axis=1)})


def _ends(total: np.ndarray, bands: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    if bands is None:
        return total, total
    low, high = numbers(bands, ["low", "high"])
    if len(low) != len(total):
        raise InputError(
            "as many bands as designs, please", value=len(low), allowed=str(len(total))
        )
    wrong = np.flatnonzero((low > total * (1 + 1e-9)) | (high < total * (1 - 1e-9)))
    if len(wrong):
        i = int(wrong[0])
        raise InputError("outside of its own band", place=f"row {i}", value=float(total[i]),
                         allowed=f"from {low[i]:g} to {high[i]:g}")  # fmt: skip
    return np.minimum(low, total), np.maximum(high, total)
