"""Several machines in one roofline chart, with the kernels of a workload below."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from npusim import units
from npusim.errors import InputError
from npusim.study_plots.axis import plain
from npusim.study_plots.placing import line_height, spread
from npusim.study_plots.rows import need, numbers
from npusim.study_plots.style import FILLS, INK, LINES, SMALL, below, narrow

# group -> (kinds, fill, marker); the last takes what no other names
_GROUPS: Mapping[str, tuple[str, str, str]] = MappingProxyType({
    "matrix products": ("gemv gemm grouped_gemm conv", FILLS[0], "o"),
    "attention": ("attention attention_combine", FILLS[2], "^"),
    "pointwise": ("pointwise activation rope", FILLS[3], "s"),
    "reduction, norm, sort": ("reduction softmax norm splitk_reduce scan sort topk", FILLS[4],
                              "D"),
    "data movement": ("cast copy fill cat gather scatter memcpy memset", FILLS[1], "v"),
    "other": ("", "white", "X"),
})  # fmt: skip
_GROUP_OF = {kind: group for group, (kinds, _, _) in _GROUPS.items() for kind in kinds.split()}
_AREA = 2000.0  # of a marker that stands for all of the time [pt2]
_LEAST = 9.0
_TALL = 1e6  # of the y axis, top over bottom: what is lower is limited by neither roof
_TERA = 1e12


def roofline(
    ax: Axes, machines: Mapping[str, tuple[float, float]], kernels: pd.DataFrame | None = None
) -> Axes:
    r"""Draw the roofs of machines, and kernels by kind.

    Parameters
    ----------
    ax : Axes
        Throughput [TFLOP/s] against arithmetic intensity [FLOP/B], both logarithmic. Each roof
        bears its name, peak and bandwidth at its right end.
    machines : mapping of str to (float, float)
        Name -> DRAM bandwidth [B/s] and highest throughput [FLOP/s], datasheet or sustained
        (`npusim.plots.roof` knows both).
    kernels : DataFrame, optional
        One row a kernel: ``kind``, ``intensity`` [FLOP/B], ``flop_rate`` [FLOP/s], ``time_share``
        (of the device time: the area of its marker).

    Raises
    ------
    InputError
        No machine, a rate or an intensity that is not above zero, or a column that is not there.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = roofline(Figure().subplots(), {"H200": (4.8e12, 989e12)})
    >>> [t.get_text() for t in ax.texts]
    ['H200:\n989 TFLOP/s, 4.8 TB/s']
    """
    if not machines:
        raise InputError("nothing to draw", hint="give a machine")
    points = _points(kernels)
    for name, rates in machines.items():
        if not (np.isfinite(rates).all() and min(rates) > 0):
            raise InputError("not a roof", place=name, value=rates, allowed="rates above zero")
    ridges = [top / slope for slope, top in machines.values()]
    x = np.array([*points["intensity"], *ridges])
    span = float(min(0.5, x.min() / 2)), float(x.max() * 6)
    y = np.array([*points["rate"], *(top / _TERA for _, top in machines.values()),
                  *(slope / _TERA * span[0] for slope, _ in machines.values())])  # fmt: skip
    bottom = max(y.min() / 1.6, y.max() / _TALL)
    ax.set(xlim=span, ylim=(bottom, y.max() * 2.2), xscale="log", yscale="log",
           xlabel="arithmetic intensity [FLOP/B]", ylabel="throughput [TFLOP/s]")  # fmt: skip
    plain(ax.xaxis, *ax.get_xlim())
    plain(ax.yaxis, *ax.get_ylim())
    for (slope, top), (colour, dash, _) in zip(machines.values(), cycle(LINES), strict=False):
        y_roof = np.array([span[0] * slope, top, top]) / _TERA
        ax.plot([span[0], top / slope, span[1]], y_roof, color=colour, linestyle=dash, zorder=2,
                linewidth=1.5)  # fmt: skip
    _name(ax, machines, span[1])
    if len(points):
        _draw(ax, points.assign(rate=np.maximum(points["rate"], bottom)))
        told = "area of a marker: share of device time"
        if (low := points["rate"] < bottom).any():
            told += (f"\nat the lower edge: {low.sum()} of {len(low)} kernels, "
                     f"{points['share'][low].sum():.1%}, that lie below")  # fmt: skip
        below(ax, 3, title=told, title_fontsize=SMALL)
    return ax


def _points(kernels: pd.DataFrame | None) -> pd.DataFrame:
    if kernels is None:
        return pd.DataFrame({"intensity": [], "rate": []})
    need(kernels, ["kind"])
    intensity, rate, share = numbers(kernels, ["intensity", "flop_rate", "time_share"])
    if not (intensity > 0).all() or not (rate > 0).all():
        raise InputError("a kernel without FLOP", hint="leave it out: it has no place in the chart")
    group = kernels["kind"].map(_GROUP_OF).fillna("other")
    return pd.DataFrame({"group": group.to_numpy(), "intensity": intensity, "rate": rate / _TERA,
                         "share": share})  # fmt: skip


def _name(ax: Axes, machines: Mapping[str, tuple[float, float]], right: float) -> None:
    """Write what each machine reaches at the right end of its roof, none over another."""
    to_axes = ax.transData + ax.transAxes.inverted()
    tops = [top / _TERA for _, top in machines.values()]
    places = [float(to_axes.transform((right, top))[1]) for top in tops]
    between = ",\n" if narrow(ax) else ", "
    lines = 3 if narrow(ax) else 2
    height = line_height(ax, SMALL) * lines
    rows = spread(places, 1.1 * height, height / 2, 1.0)
    for i, ((name, (slope, peak)), top, row) in enumerate(
        zip(machines.items(), tops, rows, strict=True)
    ):
        told = f"{units.show(peak, 'FLOP/s', 3)}{between}{units.show(slope, 'B/s', 3)}"
        ax.annotate(f"{name}:\n{told}", (right, top), xytext=(1.06, float(row)),
                    textcoords="axes fraction", va="center", fontsize=SMALL, parse_math=False,
                    annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0,
                                "relpos": (0, 0.5),
                                "color": LINES[i % len(LINES)][0]})  # fmt: skip


def _draw(ax: Axes, points: pd.DataFrame) -> None:
    for group, (_, colour, marker) in _GROUPS.items():
        part = points[points["group"] == group]
        if part.empty:
            continue
        look: dict[str, Any] = {"marker": marker, "edgecolors": INK, "linewidths": 0.4}
        ax.scatter(part["intensity"], part["rate"], s=np.maximum(_AREA * part["share"], _LEAST),
                   c=colour, alpha=0.85, zorder=3, clip_on=False, **look)  # fmt: skip
        ax.plot([], [], marker, color=colour, markeredgecolor=INK, markeredgewidth=0.4,
                label=f"{group}, {part['share'].sum():.1%}")  # fmt: skip
