"""In which order features are worth building, and what they make of a design together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from npusim.study_plots.rows import above_zero, banded, need, numbers
from npusim.study_plots.style import FILLS, INK, RULE, SMALL, below

_BEFORE: dict[str, Any] = {"facecolor": FILLS[0], "edgecolor": INK, "linewidth": 0.6}
_ADDED: dict[str, Any] = {
    "facecolor": FILLS[4],
    "edgecolor": INK,
    "hatch": "////",
    "linewidth": 0.6,
}
_LOST: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": FILLS[2],
    "hatch": "xxxx",
    "linewidth": 0.6,
}


def build_order(ax: Axes, rows: pd.DataFrame, what: str = "speed-up") -> Axes:
    """Draw the gain of features one after another, in the order in which they are chosen.

    Parameters
    ----------
    ax : Axes
        How many times better than without any feature; one row a feature, from the top. The dark
        part is what those before had reached, the hatched one what this feature adds.
    rows : DataFrame
        ``label``; ``factor``, ``low`` and ``high``: the gain of this and all features before it,
        and its band [1]; ``area_mm2``, what this feature takes [mm2], which stands in a second
        line below its name.
    what : str
        What the factor is.

    Raises
    ------
    InputError
        A column that is not there, a value that is no number or outside of its band, or a factor
        that is not above zero.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> rows = pd.DataFrame({"label": ["queue", "KV SRAM"], "factor": [1.2, 1.5],
    ...                      "low": [1.1, 1.3], "high": [1.3, 1.6], "area_mm2": [0.0, 4.5]})
    >>> ax = build_order(Figure().subplots(), rows)
    >>> [t.get_text() for t in ax.texts]
    ['1.2x', '1.5x (by 1.25x)']
    """
    need(rows, ["label"])
    factor, low, high = banded(rows, ("factor", "low", "high"))
    above_zero(factor, "factor")
    (area,) = numbers(rows, ["area_mm2"])
    before = np.concatenate([[1.0], factor[:-1]])
    ax.axvline(1.0, color=RULE, linewidth=0.9, linestyle=":", zorder=1)
    for i in range(len(factor)):
        ax.barh(i, min(before[i], factor[i]), height=0.56, zorder=2, **_BEFORE)
        ax.barh(i, factor[i] - before[i], left=before[i], height=0.56, zorder=2,
                **(_ADDED if factor[i] >= before[i] else _LOST))  # fmt: skip
        ax.errorbar(factor[i], i + 0.36, xerr=[[factor[i] - low[i]], [high[i] - factor[i]]],
                    color=RULE, linewidth=1.1, capsize=2.5, zorder=3,
                    label="" if i else "band")  # fmt: skip
        by = f" (by {factor[i] / before[i]:.3g}x)" if i else ""
        ax.annotate(f"{factor[i]:.3g}x{by}", (max(high[i], before[i]), i), xytext=(5, 0),
                    textcoords="offset points", va="center", fontsize=SMALL)  # fmt: skip
    told = [f"{i}. {text}\n{_cost(mm2)}" for i, (text, mm2) in
            enumerate(zip(rows["label"], area, strict=True), 1)]  # fmt: skip
    ax.set_yticks(range(len(factor)), told, parse_math=False)
    ax.set(xlabel=f"{what}, all features so far [1]", xlim=(0, 1.28 * float(high.max())),
           ylim=(len(factor) - 0.45, -0.55))  # fmt: skip
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.barh([0], [0], label="features before", **_BEFORE)
    ax.barh([0], [0], label="added by this one", **_ADDED)
    if (factor < before).any():
        ax.barh([0], [0], label="lost by this one", **_LOST)
    below(ax, 4)
    return ax


def _cost(mm2: float) -> str:
    return "no area" if abs(mm2) < 5e-4 else f"{mm2:+.3g} mm2"
