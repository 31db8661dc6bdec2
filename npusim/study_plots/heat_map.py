"""A figure over two parameters: a heat map with contours, and where it crosses a limit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.study_plots.axis import label, plain, scale, unit_of, wide
from npusim.study_plots.rows import numbers
from npusim.study_plots.style import INK, SMALL, below, shades

Array = NDArray[np.float64]

_LEVELS = 6
_VECTORS = 2500  # cells: more of them make a file too large
_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


def heat(
    ax: Axes, table: pd.DataFrame, x: str, y: str, value: str, limit: float | None = None,
    nominal: tuple[float, float] | None = None,
) -> Axes:  # fmt: skip
    """Draw a figure over a grid of two parameters.

    Parameters
    ----------
    ax : Axes
        Two parameters in their units, each logarithmic if it spans ten times; a colour bar on
        the right. Cells are as wide as half the way to their neighbours.
    table : DataFrame
        One design a cell of the grid, each combination once [SI].
    x, y : str
        Columns of the parameters.
    value : str
        Column of the figure.
    limit : float, optional
        Where the figure crosses this, the contour is thick [SI].
    nominal : (float, float), optional
        Values of x and y [SI] whose cell is framed, with a star at the point itself.

    Raises
    ------
    InputError
        A column that is not there or holds no numbers, a grid with holes or with several designs a
        cell, one row or column only, or a nominal design that is not on the map.

    Notes
    -----
    Contours join points found by straight lines between the middles of cells.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> table = pd.DataFrame({"units.count": [40, 80, 40, 80], "wall_s": [4e-3, 3e-3, 2e-3, 1e-3],
    ...                       "memories.dram.bandwidth": [1e12, 1e12, 2e12, 2e12]})
    >>> ax = heat(Figure().subplots(), table, "units.count", "memories.dram.bandwidth", "wall_s")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('units.count [1]', 'memories.dram.bandwidth [TB/s]')
    """
    across, up, grid = _grid(table, x, y, value)
    (x_scale, x_unit), (y_scale, y_unit), (v_scale, v_unit) = (
        scale(values, unit_of(n)) for values, n in ((across, x), (up, y), (grid, value))
    )
    across, up, grid = across / x_scale, up / y_scale, grid / v_scale
    edges = _edges(across), _edges(up)
    mesh = ax.pcolormesh(*edges, grid, cmap=shades(), shading="flat", edgecolors="face",
                         linewidth=0.2, rasterized=grid.size > _VECTORS)  # fmt: skip
    for middles, span, setting, axis in ((across, edges[0], ax.set_xscale, ax.xaxis),
                                         (up, edges[1], ax.set_yscale, ax.yaxis)):  # fmt: skip
        if wide(middles):
            setting("log")
            plain(axis, span[0], span[-1])
    ax.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    at = [] if nominal is None else [(nominal[0] / x_scale, nominal[1] / y_scale)]
    for point in at:
        _mark(ax, edges, point)
    _contours(ax, (across, up, grid), None if limit is None else limit / v_scale, v_unit, at)
    bar = ax.figure.colorbar(mesh, ax=ax, label=label(value, v_unit), pad=0.02)
    bar.outline.set_linewidth(0.5)
    ax.set(xlabel=label(x, x_unit), ylabel=label(y, y_unit))
    ax.grid(visible=False)
    if ax.get_legend_handles_labels()[0]:
        below(ax, 2)
    return ax


def _grid(table: pd.DataFrame, x: str, y: str, value: str) -> tuple[Array, Array, Array]:
    """Return the values of both parameters, and the figure of each cell, (Y, X)."""
    numbers(table, [x, y, value])
    if table.duplicated([x, y]).any():
        raise InputError("several designs in one cell", value=f"{x}, {y}",
                         hint="choose one value of every other axis")  # fmt: skip
    found = table.pivot_table(index=y, columns=x, values=value)
    if found.isna().to_numpy().any():
        raise InputError("a grid with holes", value=f"{x}, {y}")
    if min(found.shape) < 2:
        raise InputError("too small for a map", value=f"{found.shape[1]} x {found.shape[0]}",
                         allowed="two values of each parameter, or more")  # fmt: skip
    across, up = (i.to_numpy(dtype=float) for i in (found.columns, found.index))
    return across, up, found.to_numpy(dtype=float)


def _edges(middles: Array) -> Array:
    """Return where cells begin and end: half the way between middles, of logarithms if wide."""
    x = np.log(middles) if wide(middles) else middles
    inner = (x[1:] + x[:-1]) / 2
    edges = np.concatenate([[2 * x[0] - inner[0]], inner, [2 * x[-1] - inner[-1]]])
    return np.exp(edges) if wide(middles) else edges


def _contours(
    ax: Axes, cells: tuple[Array, Array, Array], limit: float | None, unit: str,
    away: list[tuple[float, float]],
) -> None:  # fmt: skip
    """Draw contours at round values, and a thick one at the limit; name each, away from points."""
    low, high = float(cells[2].min()), float(cells[2].max())
    crossed = limit is not None and low < limit < high
    apart = 0.35 * (high - low) / _LEVELS  # lines nearer to the limit would run into it
    levels = [v for v in MaxNLocator(_LEVELS).tick_values(low, high)
              if low < v < high and (limit is None or abs(v - limit) > apart)]  # fmt: skip
    taken = [ax.transData.transform(point) for point in away]
    for level in [*([limit] if crossed else []), *levels]:
        thick = crossed and level == limit
        drawn = ax.contour(*cells, levels=[level], colors=INK, linewidths=2.4 if thick else 0.7)
        place = _free(ax, np.concatenate(drawn.allsegs[0]), taken)
        if place is None:
            continue
        taken.append(ax.transData.transform(place))
        told = f"limit {level:.4g}" if thick else f"{level:g}"
        for text in ax.clabel(drawn, fmt={level: told}, fontsize=SMALL, manual=[place]):
            text.set(bbox=dict(_BOX), weight="bold" if thick else "normal")
    if limit is not None and crossed:
        ax.plot([], [], color=INK, linewidth=2.4, label=f"limit: {_with_unit(limit, unit)}")
    elif limit is not None:
        where = "above" if high <= limit else "below"
        ax.set_title(f"nowhere {where} the limit of {_with_unit(limit, unit)}")


def _free(ax: Axes, line: Array, taken: list[Array]) -> tuple[float, float] | None:
    """Return the point of a contour that lies furthest from labels and from the edges."""
    fine = np.concatenate([a + (b - a) * np.linspace(0, 1, 8)[:, None]
                           for a, b in pairwise(line)] or [line])  # fmt: skip
    on_page = ax.transData.transform(fine)
    box = ax.get_window_extent()
    edge = np.min([on_page[:, 0] - box.x0, box.x1 - on_page[:, 0],
                   on_page[:, 1] - box.y0, box.y1 - on_page[:, 1]], axis=0)  # fmt: skip
    # Names are wider than high: distances across count for less.
    room = [np.hypot((on_page[:, 0] - at[0]) / 2, on_page[:, 1] - at[1]) for at in taken]
    least = np.min([*room, edge, np.full(len(fine), 0.1 * box.width)], axis=0)
    best = int(np.argmax(least + 1e-3 * edge))
    if least[best] < 0.6 * SMALL * ax.figure.dpi / 72:
        return None
    return float(fine[best, 0]), float(fine[best, 1])


def _mark(ax: Axes, edges: tuple[Array, Array], at: tuple[float, float]) -> None:
    """Frame the cell that holds the nominal design, and put a star on it."""
    corner, size = [], []
    for ends, value in zip(edges, at, strict=True):
        i = int(np.searchsorted(ends, value, side="right")) - 1
        if not 0 <= i < len(ends) - 1:
            raise InputError("the nominal design is not on the map", value=f"{value:.4g}",
                             allowed=f"{ends[0]:.4g} to {ends[-1]:.4g}")  # fmt: skip
        corner.append(ends[i])
        size.append(ends[i + 1] - ends[i])
    ax.add_patch(Rectangle((corner[0], corner[1]), size[0], size[1], fill=False, edgecolor=INK,
                           linewidth=1.6, linestyle="--", zorder=4))  # fmt: skip
    ax.plot([at[0]], [at[1]], "*", markersize=9, color="white", markeredgecolor=INK, zorder=5,
            linestyle="", label="nominal design, its cell framed")  # fmt: skip


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.4g}" if unit == "1" else f"{value:.4g} {unit}"
