"""What designs cost and what they give: all of them, those that none beats, and some by name."""

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
from npusim.study_plots.placing import beside
from npusim.study_plots.rows import numbers
from npusim.study_plots.style import FILLS, INK, SMALL, below

Array = NDArray[np.float64]
Design = Mapping[str, Any]

_GRID = 250  # points closer than this share of an axis cannot be told apart: one is drawn
_BARRED = 25  # error bars at most: more would be a blot
_MARKS = ("*", "s", "^", "P", "D", "v")
_EDGE = 4.0  # labels keep off the edges of the axes by this [pt]
_LED = 14.0  # labels further off than this are led to their points by a line [pt]
_LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.6, "color": INK, "shrinkA": 0,
                           "shrinkB": 4}  # fmt: skip
_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}


def pareto(
    ax: Axes, table: pd.DataFrame, x: str, y: str, front: pd.DataFrame | None = None,
    named: Mapping[str, Design] | None = None,
) -> Axes:  # fmt: skip
    """Draw designs against two figures, those that no other beats with error bars.

    Parameters
    ----------
    ax : Axes
        Two figures in their units, each logarithmic if it spans ten times.
    table : DataFrame
        Designs as `npusim.sweeps.run.sweep` returns them [SI]. Of designs that would cover each
        other one is drawn.
    x, y : str
        Columns: what is paid, and what is had for it; small is better in both.
    front : DataFrame, optional
        Those that no other beats (`npusim.sweeps.front.pareto`); with bands as error bars where
        they have them. Steps join them.
    named : mapping of str to (Series or mapping), optional
        Designs to mark and to call by name: each holds x and y. They need not be in the table.

    Raises
    ------
    InputError
        A column that is not there or holds no numbers.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> table = pd.DataFrame({"area_mm2": [300.0, 400.0], "wall_s": [2e-3, 1e-3]})
    >>> ax = pareto(Figure().subplots(), table, "area_mm2", "wall_s", table,
    ...             {"nominal": table.iloc[0]})
    >>> ax.get_xlabel(), ax.get_ylabel(), [t.get_text() for t in ax.texts]
    ('die area [mm2]', 'step time [ms]', ['nominal'])
    """
    chosen = _chosen(named or {}, x, y)
    of_front = table.iloc[:0] if front is None else front
    bars = {name: bands(of_front, name) for name in (x, y)}
    held = {n: np.concatenate([*numbers(table, [n]), chosen[n].to_numpy(dtype=float),
                               bars[n].ravel()]) for n in (x, y)}  # fmt: skip
    (x_scale, x_unit), (y_scale, y_unit) = (scale(held[n], unit_of(n)) for n in (x, y))
    _limits(ax, held[x] / x_scale, held[y] / y_scale)
    points = thinned(table[[x, y]].to_numpy(dtype=float)) / (x_scale, y_scale)
    ax.plot(points[:, 0], points[:, 1], "o", markersize=2.6, color="#9A9A9A", alpha=0.7,
            markeredgewidth=0, rasterized=len(points) > 500,
            label=_count(len(table), "design"))  # fmt: skip
    if len(of_front):
        places = of_front[[x, y]].to_numpy(dtype=float) / (x_scale, y_scale)
        _draw_front(ax, places, bars[x] / x_scale, bars[y] / y_scale)
    marked = chosen[[x, y]].to_numpy(dtype=float) / (x_scale, y_scale)
    ax.set(xlabel=label(x, x_unit), ylabel=label(y, y_unit))
    covered = [points]
    if len(of_front):
        ends_of = [np.column_stack([places[:, 0], end / y_scale]) for end in bars[y]]
        covered += [places, *((1 - t) * ends_of[0] + t * ends_of[1] for t in (0, 0.25, 0.75, 1))]
    _draw_named(ax, list(named or {}), marked, np.concatenate(covered))
    below(ax, 3)
    return ax


def thinned(points: Array) -> Array:
    """Return one of the points that would be drawn at the same place.

    Parameters
    ----------
    points : array, shape (N, 2)

    Examples
    --------
    >>> thinned(np.array([[0.0, 0.0], [1e-6, 0.0], [1.0, 1.0]])).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    cells = []
    for values in points.T:
        on = np.log(values) if wide(values) else values
        cells.append(np.round((on - on.min()) / (np.ptp(on) or 1.0) * _GRID))
    _, first = np.unique(np.column_stack(cells), axis=0, return_index=True)
    return points[np.sort(first)]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


def _chosen(named: Mapping[str, Design], x: str, y: str) -> pd.DataFrame:
    """Return x and y of the designs that have a name."""
    found = pd.DataFrame([{n: d.get(n, np.nan) for n in (x, y)} for d in named.values()],
                         columns=[x, y], dtype=float)  # fmt: skip
    for name, row in zip(named, found.to_numpy(dtype=float), strict=True):
        if not np.isfinite(row).all():
            raise InputError("a design without a figure", place=name, value=f"{x}, {y}")
    return found


def _limits(ax: Axes, across: Array, up: Array) -> None:
    for values, which, setting in ((across, "x", ax.set_xlim), (up, "y", ax.set_ylim)):
        low, high = float(values.min()), float(values.max())
        if wide(values):
            room = (high / low) ** 0.06
            setting(low / room, high * room)
            logarithmic(ax, which)
        else:
            room = 0.07 * (high - low) or 0.1 * abs(high) or 1.0
            setting(low - room, high + room)


def _draw_front(ax: Axes, places: Array, across: Array, up: Array) -> None:
    """Draw the front as steps; error bars on designs along it that lie apart."""
    order = np.lexsort((places[:, 1], places[:, 0]))
    ax.plot(*places[order].T, color=INK, linewidth=1.2, drawstyle="steps-post", zorder=3,
            marker="o", markersize=3,
            label=_count(len(order), "design") + " that no other beats")  # fmt: skip
    at = order[np.unique(np.linspace(0, len(order) - 1, _BARRED).astype(int))]
    x, y = places[at].T
    error = [np.array([v - ends[0, at], ends[1, at] - v]) for v, ends in ((x, across), (y, up))]
    if any(e.any() for e in error):
        ax.errorbar(x, y, xerr=error[0] if error[0].any() else None,
                    yerr=error[1] if error[1].any() else None, fmt="none", ecolor=FILLS[1],
                    elinewidth=0.8, capsize=1.8, zorder=2.5, label="error band")  # fmt: skip


def _draw_named(ax: Axes, names: list[str], marked: Array, others: Array) -> None:
    """Mark designs and write their names where they cover least."""
    if not names:
        return
    for i, place in enumerate(marked):
        ax.plot(*place[:, None], _MARKS[i % len(_MARKS)], markersize=9 if i == 0 else 6.5,
                color=FILLS[4], markeredgecolor=INK, markeredgewidth=1, zorder=6)  # fmt: skip
    points = 72 / ax.figure.dpi
    on_page, around = (ax.transData.transform(p) * points for p in (marked, others))
    box = ax.get_window_extent()
    inside = (box.x0 * points + _EDGE, box.y0 * points + _EDGE,
              box.x1 * points - _EDGE, box.y1 * points - _EDGE)  # fmt: skip
    corners = beside([(x, y) for x, y in on_page], names, SMALL + 0.5, inside,
                     [(x, y) for x, y in around])  # fmt: skip
    for name, place, corner in zip(names, marked, corners, strict=True):
        far = np.hypot(*corner) > _LED
        ax.annotate(name, (place[0], place[1]), xytext=corner, textcoords="offset points",
                    va="bottom", fontsize=SMALL + 0.5, zorder=7, bbox=dict(_BOX), parse_math=False,
                    arrowprops=dict(_LEADER) if far else None)  # fmt: skip
