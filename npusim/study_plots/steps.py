"""From one total to another, step by step: a waterfall."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from npusim.study_plots.axis import scale
from npusim.study_plots.rows import above_zero, banded, need
from npusim.study_plots.style import FILLS, INK, RULE, SMALL, below

_TOTAL: dict[str, Any] = {"facecolor": FILLS[0], "edgecolor": INK, "linewidth": 0.6}
_GAIN: dict[str, Any] = {"facecolor": FILLS[3], "edgecolor": INK, "linewidth": 0.6}
_LOSS: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": FILLS[2],
    "hatch": "////",
    "linewidth": 0.6,
}


def waterfall(
    ax: Axes, steps: pd.DataFrame, last: str = "all together", what: str = "step time",
    unit: str = "s",
) -> Axes:  # fmt: skip
    """Draw how steps lead from a first total to the last.

    Parameters
    ----------
    ax : Axes
        Totals in their unit, from zero; one row a step, from the top, between a bar of the first
        total and one of the last.
    steps : DataFrame
        ``label, total_s, low_s, high_s``: the first row is where it starts, each further one the
        total once that step is taken [s]. The bar of a step is the difference from the row before;
        its whisker the band of the total that it leads to.
    last : str
        What the bar at the end is called.
    what : str
        What the totals are.
    unit : str
        Their SI unit, if not seconds.

    Raises
    ------
    InputError
        A column that is not there, a value that is no number or outside of its band, or a total
        that is not above zero.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> steps = pd.DataFrame({"label": ["H200", "as graph"], "total_s": [8e-3, 2e-3],
    ...                       "low_s": [7e-3, 1.8e-3], "high_s": [9e-3, 2.2e-3]})
    >>> ax = waterfall(Figure().subplots(), steps)
    >>> [t.get_text() for t in ax.texts]
    ['8 ms', '-6 ms, 4x', '2 ms, 4x in all']
    """
    need(steps, ["label"])
    total, low, high = banded(steps, ("total_s", "low_s", "high_s"))
    above_zero(total, "total_s")
    factor, shown = scale(total, unit)
    total, low, high = total / factor, low / factor, high / factor
    ends = [*range(len(total)), len(total) - 1]  # the last total once more, as a bar of its own
    right = float(high.max())
    for row, i in enumerate(ends):
        whole = row in (0, len(total))
        before = 0.0 if whole else total[i - 1]
        bar = _TOTAL if whole else _GAIN if total[i] <= before else _LOSS
        ax.barh(row, total[i] - before, left=before, height=0.56, zorder=2, **bar)
        ax.errorbar(total[i], row + 0.4, xerr=[[total[i] - low[i]], [high[i] - total[i]]],
                    color=RULE, linewidth=1.1, capsize=2, zorder=3,
                    label="" if row else "band of the total")  # fmt: skip
        if row < len(total):
            ax.plot([total[i]] * 2, [row, row + 1], color=RULE, linewidth=0.6, linestyle=":")
        text = _told(total, i, row, shown)
        ax.annotate(text, (max(before, high[i]), row), xytext=(5, 0), textcoords="offset points",
                    va="center", fontsize=SMALL)  # fmt: skip
    ax.set(xlabel=f"{what} [{shown}]", yticks=range(len(ends)), xlim=(0, 1.32 * right))
    ax.set_yticklabels([*steps["label"].astype(str), last], parse_math=False)
    ax.set_ylim(len(ends) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    change = np.diff(total)
    looks = {"total": _TOTAL, "less by a step": _GAIN, "more by a step": _LOSS}
    for words, there in zip(looks, (True, (change <= 0).any(), (change > 0).any()), strict=True):
        if there:
            ax.bar([0], [0], label=words, **looks[words])
    below(ax, 4)
    return ax


def _told(total: np.ndarray, i: int, row: int, unit: str) -> str:
    """Return what stands beside a bar: the total, or what its step changes."""
    if row == 0:
        return f"{total[0]:.3g} {unit}"
    if row == len(total):
        return f"{total[i]:.3g} {unit}, {total[0] / total[i]:.3g}x in all"
    return f"{total[i] - total[i - 1]:+.3g} {unit}, {total[i - 1] / total[i]:.3g}x"
