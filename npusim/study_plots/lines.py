"""A figure along one parameter, case by case: lines with bands and labels at their ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.study_plots.axis import label, logarithmic, scale, unit_of, wide
from npusim.study_plots.bands import bands
from npusim.study_plots.placing import line_height, spread, text_width
from npusim.study_plots.rows import need, numbers
from npusim.study_plots.style import INK, PALE, RULE, SMALL, line

Array = NDArray[np.float64]
Mark = float | tuple[float, float]

_MOST = 8
_RANGE: dict[str, Any] = {"facecolor": PALE, "edgecolor": RULE, "linestyle": ":",
                          "linewidth": 0.7, "zorder": 0}  # fmt: skip
_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3}


def curves(
    ax: Axes, table: pd.DataFrame, x: str, y: str, by: str,
    upright: Mapping[str, Mark] | None = None, level: Mapping[str, Mark] | None = None,
) -> Axes:  # fmt: skip
    """Draw a figure against a parameter, one line a case, with bands where the table has them.

    Parameters
    ----------
    ax : Axes
        The figure against the parameter, in their units; logarithmic where values span ten times.
        Each line bears its name at its right end.
    table : DataFrame
        One row a point, each value of x once in a case [SI]; bands are the columns that a sweep
        has (`npusim.sweeps.ends`), or ``low`` and ``high``.
    x, y, by : str
        Columns of the parameter, of the figure, and of what tells cases apart.
    upright : mapping of str to float or (float, float), optional
        Values of x, or ranges of it, to mark: label -> place [SI].
    level : mapping of str to float or (float, float), optional
        Values of y, or ranges, likewise.

    Raises
    ------
    InputError
        A column that is not there or holds no numbers, too many cases to be told apart, or several
        designs at one place.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> table = pd.DataFrame({"launch": ["graph", "graph"], "wall_s": [4e-3, 3e-3],
    ...                       "memories.dram.bandwidth": [1e12, 2e12]})
    >>> ax = curves(Figure().subplots(), table, "memories.dram.bandwidth", "wall_s", "launch")
    >>> ax.get_xlabel(), ax.get_ylabel(), [t.get_text() for t in ax.texts]
    ('memories.dram.bandwidth [TB/s]', 'step time [ms]', ['graph'])
    """
    _check(table, x, y, by)
    low, high = _band(table, y)
    marks = {"x": dict(upright or {}), "y": dict(level or {})}
    across = np.array([*table[x], *_values(marks["x"])], dtype=float)
    up = np.concatenate([low, high, _values(marks["y"])])
    (x_scale, x_unit), (y_scale, y_unit) = scale(across, unit_of(x)), scale(up, unit_of(y))
    drawn = table.assign(_x=table[x] / x_scale, _y=table[y] / y_scale, _low=low / y_scale,
                         _high=high / y_scale)  # fmt: skip
    _limits(ax, across / x_scale, up / y_scale)
    tips = []
    for i, (name, case) in enumerate(
        drawn.sort_values("_x", kind="stable").groupby(by, sort=False)
    ):
        look = line(i)
        ax.plot(case["_x"], case["_y"], zorder=3, **look)
        if (case["_high"] > case["_low"]).any():
            ax.fill_between(case["_x"], case["_low"], case["_high"], color=look["color"],
                            alpha=0.16, linewidth=0, zorder=1)  # fmt: skip
        tips.append((str(name), float(case["_x"].iloc[-1]), float(case["_y"].iloc[-1]),
                     look["color"]))  # fmt: skip
    _upright(ax, marks["x"], x_scale)
    _level(ax, marks["y"], y_scale, drawn[["_x", "_low", "_high"]])
    ax.set(xlabel=label(x, x_unit), ylabel=label(y, y_unit))
    _named(ax, tips)
    return ax


def _check(table: pd.DataFrame, x: str, y: str, by: str) -> None:
    numbers(table, [x, y])
    need(table, [by])
    if table[by].nunique() > _MOST:
        raise InputError("too many cases to be told apart", value=int(table[by].nunique()),
                         allowed=f"up to {_MOST}")  # fmt: skip
    if table.duplicated([x, by]).any():
        raise InputError("several designs at one place", value=f"{x}, {by}",
                         hint="choose one value of every other axis")  # fmt: skip


def _band(table: pd.DataFrame, y: str) -> tuple[Array, Array]:
    """Return the ends of the band of each point; the point itself where there is none."""
    if {"low", "high"} <= set(table.columns):
        low, high = numbers(table, ["low", "high"])
        return low, high
    found = bands(table, y)
    return found[0], found[1]


def _values(marks: Mapping[str, Mark]) -> list[float]:
    return [v for mark in marks.values() for v in (mark if isinstance(mark, tuple) else (mark,))]


def _limits(ax: Axes, across: Array, up: Array) -> None:
    for values, which, setting in ((across, "x", ax.set_xlim), (up, "y", ax.set_ylim)):
        low, high = float(values.min()), float(values.max())
        if wide(values):
            room = (high / low) ** (0.03 if which == "x" else 0.06)
            setting(low / room, high * room)
            logarithmic(ax, which)
        else:
            room = (0.03 if which == "x" else 0.08) * (high - low) or 0.1 * abs(high) or 1.0
            # A figure that starts near zero is drawn from zero: its shape is not told bigger.
            setting(0.0 if which == "y" and 0 <= low < 0.5 * high else low - room, high + room)


def _upright(ax: Axes, marks: Mapping[str, Mark], factor: float) -> None:
    """Draw what is marked on the x axis; names stand above, in rows where they are near."""
    left, right = ax.get_xlim()
    rows: list[float] = []  # where the last name of each row ends [pixel]
    ordered = sorted(marks.items(), key=lambda mark: np.max(mark[1]))
    for text, mark in ordered:
        if isinstance(mark, tuple):
            ax.axvspan(mark[0] / factor, mark[1] / factor, **_RANGE)
        else:
            ax.axvline(mark / factor, color=RULE, linestyle="--", linewidth=0.9, zorder=0.9)
        at = float(np.sqrt(np.prod(mark)) if isinstance(mark, tuple) else mark) / factor
        place = ax.transData.transform((at, ax.get_ylim()[0]))[0]
        late = place > ax.bbox.x0 + 0.8 * ax.bbox.width
        width = text_width(text, SMALL) * ax.figure.dpi / 72
        begin = place - width * (1.0 if late else 0.5)
        row = next((i for i, end in enumerate(rows) if end < begin), len(rows))
        rows[row : row + 1] = [begin + width]
        ax.annotate(text, (min(max(at, left), right), 1.0), xycoords=("data", "axes fraction"),
                    xytext=(0, 2 + 9 * row), textcoords="offset points",
                    ha="right" if late else "center", va="bottom", fontsize=SMALL, color=INK,
                    parse_math=False)  # fmt: skip


def _level(ax: Axes, marks: Mapping[str, Mark], factor: float, drawn: pd.DataFrame) -> None:
    """Draw what is marked on the y axis; names stand inside, at the side with more room."""
    for text, mark in marks.items():
        if isinstance(mark, tuple):
            ax.axhspan(mark[0] / factor, mark[1] / factor, **_RANGE)
        else:
            ax.axhline(mark / factor, color=RULE, linestyle=(0, (4, 2)), linewidth=0.9, zorder=0.9)
        y = float(np.max(mark)) / factor
        x = _roomier(ax, y, drawn)
        ax.annotate(text, (x, y), xycoords=("axes fraction", "data"), xytext=(3 - 6 * x, 2),
                    textcoords="offset points", ha="right" if x else "left", va="bottom",
                    fontsize=SMALL, parse_math=False, bbox=dict(_BOX))  # fmt: skip


def _roomier(ax: Axes, y: float, drawn: pd.DataFrame) -> float:
    """Return 0 if the left third of the axes has more room at a height, 1 if the right has."""
    across, low, high = (ax.transAxes.inverted().transform(
        ax.transData.transform(drawn[["_x", name]].to_numpy(dtype=float)))
        for name in ("_low", "_low", "_high"))  # fmt: skip
    at = ax.transAxes.inverted().transform(ax.transData.transform((ax.get_xlim()[0], y)))[1]
    off = np.maximum(np.maximum(low[:, 1] - at, at - high[:, 1]), 0.0)
    left, right = (off[side].min(initial=1.0) for side in
                   (across[:, 0] < 1 / 3, across[:, 0] > 2 / 3))  # fmt: skip
    return float(right > left)


def _named(ax: Axes, tips: list[tuple[str, float, float, Any]]) -> None:
    """Write the name of each line beside its right end, none over another."""
    box = ax.transAxes.inverted()
    places = [float(box.transform(ax.transData.transform((x, y)))[1]) for _, x, y, _ in tips]
    rows = spread(places, line_height(ax, SMALL), 0.0, 1.0)
    for (text, x, y, colour), row in zip(tips, rows, strict=True):
        ax.annotate(text, (x, y), xytext=(1.045, float(row)), textcoords="axes fraction",
                    va="center", fontsize=SMALL, parse_math=False, annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": colour,
                                "shrinkA": 1, "shrinkB": 3,
                                "relpos": (0, 0.5)})  # fmt: skip
