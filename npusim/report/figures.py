"""The figures of a profiling report: each function draws data into an Axes and returns it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from npusim import plots
from npusim.arch import Arch
from npusim.atomic import whole_file
from npusim.figures import STYLE
from npusim.report.data import Figure, Histogram, Report
from npusim.report.timeline import SHORT_S
from npusim.units import show
from npusim.workload import Workload

_BLUE, _ORANGE, _INK, _GREY = "#0072B2", "#D55E00", "#222222", "#999999"
_DPI = 130
_NAMED = 8
_NEAR = 11.0  # points: numbers closer than this run into each other
_ASIDE = ((0, 0), (22, 14), (-22, 14), (22, -14), (-22, -14), (0, 28), (0, -28), (40, 0), (-40, 0))
_SCALES: Mapping[str, tuple[float, str]] = MappingProxyType({
    "s": (1e-6, "µs"), "B/s": (1e9, "GB/s"), "FLOP/s": (1e9, "GFLOP/s"), "share": (0.01, "%"),
    "Hz": (1e9, "GHz"), "B": (1e6, "MB"),
})  # fmt: skip


def histogram(ax: Axes, h: Histogram, parts: tuple[str, str] = ("launches", "time")) -> Axes:
    """Draw a histogram: bars are shares of launches, the line is shares of their time.

    Parameters
    ----------
    ax : Axes
        Share [%] against the quantity in the unit of reports, logarithmic if its bins are.
    h : Histogram
    parts : tuple of str
        What the bars and what the line count.
    """
    scale, unit = _SCALES.get(h.unit, (1.0, h.unit))
    edges = h.edges / scale
    count = 100 * h.launches / (h.launches.sum() or 1.0)
    time = 100 * h.seconds / (h.seconds.sum() or 1.0)
    ax.bar(edges[:-1], count, np.diff(edges), align="edge", color=_BLUE, alpha=0.45,
           edgecolor="white", linewidth=0.5, label=parts[0])  # fmt: skip
    ax.stairs(time, edges, color=_ORANGE, linewidth=1.4, label=parts[1])
    if h.log:
        ax.set_xscale("log")
        _plain_log(ax)
    ax.set_xlim(edges[0], edges[-1])
    words = [f"[{unit}]"] * (unit != "1")
    if h.missing:
        words.append(f"({h.missing:,} {parts[0]} {'zero or ' * h.log}unknown)")
    ax.set(title=h.label, xlabel=" ".join(words), ylabel="share [%]")
    return ax


def _plain_log(ax: Axes) -> None:
    """Write decades as plain numbers, as thousands and millions where they are long."""
    low, high = ax.get_xlim()
    decades = math.log10(high / low) if low > 0 else 9
    subs = (1, 2, 5) if decades < 2.3 else (1,)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    ax.xaxis.set_major_formatter(FuncFormatter(_short))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float, _: object = None) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / {'G': 1e9, 'M': 1e6, 'k': 1e3}[letter]:g}{letter}"
    return f"{value:g}"


def kernel_roofline(ax: Axes, points: pd.DataFrame, arch: Arch) -> Axes:
    """Draw kernels under the roof of a machine, the most expensive numbered and named below.

    Parameters
    ----------
    ax : Axes
        Throughput [TFLOP/s] against arithmetic intensity [FLOP/B], both logarithmic.
    points : DataFrame
        One row a kernel, most time first: ``label, kind, time_share, intensity, flop_rate``.
    arch : Arch
        Its datasheet roof is dashed, its sustained one solid.
    """
    drawn = points.assign(x=points["intensity"], y=points["flop_rate"] / 1e12,
                          share=points["time_share"])  # fmt: skip
    slope, top, _ = plots.roof(arch)
    span = min(0.1, drawn["x"].min()) / 2, max(drawn["x"].max(), top / slope) * 5
    plots.draw_roof(ax, arch, span, _INK, "-")
    plots.draw_roof(ax, arch, span, _INK, "--", sustained=False)
    roofs = ax.get_legend_handles_labels()[0]
    groups = plots.draw_groups(ax, drawn, ("x", "y"), 3000)
    ax.set(xscale="log", yscale="log", xlim=span, xlabel="arithmetic intensity [FLOP/B]",
           ylabel="throughput [TFLOP/s]")  # fmt: skip
    _named(ax, drawn, [*roofs, *groups])
    return ax


def normalised_roofline(ax: Axes, points: pd.DataFrame) -> Axes:
    """Draw kernels under one roof for all units and types, the most expensive numbered and named.

    Parameters
    ----------
    ax : Axes
        Share of the peak FLOP/s against arithmetic intensity over the ridge, both logarithmic.
    points : DataFrame
        One row a kernel, most time first: ``label, kind, time_share, over_ridge, flop_share``.
    """
    drawn = points.assign(x=points["over_ridge"], y=points["flop_share"],
                          share=points["time_share"])  # fmt: skip
    span = min(0.1, drawn["x"].min()) / 2, max(drawn["x"].max(), 2.0) * 5
    roof = np.array([span[0], 1.0, span[1]])
    (line,) = ax.plot(roof, np.minimum(roof, 1.0), color=_INK, linestyle="--", linewidth=1.2,
                      label="datasheet peaks of the unit and type in use")  # fmt: skip
    groups = plots.draw_groups(ax, drawn, ("x", "y"), 3000)
    ax.set(xscale="log", yscale="log", xlim=span, xlabel="arithmetic intensity / ridge",
           ylabel="share of peak FLOP/s")  # fmt: skip
    _named(ax, drawn, [line, *groups])
    return ax


def _named(ax: Axes, drawn: pd.DataFrame, handles: list[Any]) -> None:
    """Write numbers beside the most expensive kernels; list them under the axes."""
    ax.autoscale_view()
    top = drawn.head(_NAMED)
    points = top[["x", "y"]].to_numpy(float)
    places = ax.transData.transform(points) * 72 / ax.figure.dpi
    for number, (point, aside) in enumerate(zip(points, offsets(places), strict=True), 1):
        moved = aside != (0, 0)
        ax.annotate(
            str(number),
            (point[0], point[1]),
            xytext=aside,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            weight="bold",
            color=_INK,
            zorder=6,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6} if moved else None,
        )
        row = top.iloc[number - 1]
        name = f"{number}  {_ascii(row['label'])}, {row['share']:.1%}"
        handles += ax.plot([], [], " ", label=name[:70])
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "fontsize": 8,
                             "borderaxespad": 4.5, "ncols": 2}  # fmt: skip
    legend = ax.legend(handles=handles, **below)
    for entry in legend.get_texts():
        entry.set_parse_math(False)


def offsets(places: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return where to write numbers beside markers so that none hides another.

    Parameters
    ----------
    places : array, shape (N, 2)
        Where the markers stand [points].

    Returns
    -------
    list of tuple
        Offset of each number from its marker [points]; none where there is room on it.

    Examples
    --------
    >>> offsets(np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 3.0]]))
    [(0, 0), (0, 0), (22, 14)]
    """
    taken: list[NDArray[np.float64]] = []
    found = []
    for place in places:
        others = [p for p in places if np.hypot(*(p - place)) >= _NEAR]

        def room(aside: tuple[int, int], at: Any = place, far: Any = others) -> float:
            blocked = [*taken, *(far if aside != (0, 0) else ())]
            return min((float(np.hypot(*(at + aside - p))) for p in blocked), default=_NEAR)

        best = next((a for a in _ASIDE if room(a) >= _NEAR), max(_ASIDE, key=room))
        taken.append(place + best)
        found.append(best)
    return found


def _ascii(text: object) -> str:
    """Return text that every font can draw."""
    return str(text).encode("ascii", "replace").decode()


def durations(ax: Axes, curve: pd.DataFrame) -> Axes:
    """Draw which share of launches, and of device-busy time, is shorter than a duration.

    Parameters
    ----------
    ax : Axes
        Cumulative share [%] against duration [us], logarithmic.
    curve : DataFrame
        ``below_s, count_share, time_share``.
    """
    x = curve["below_s"] * 1e6
    ax.plot(x, 100 * curve["count_share"], color=_BLUE, label="of launches")
    ax.plot(x, 100 * curve["time_share"], "--", color=_ORANGE, label="of device-busy time")
    ax.axvline(SHORT_S * 1e6, color=_GREY, linewidth=1, linestyle=":", label=show(SHORT_S, "s"))
    ax.set(xscale="log", ylim=(0, 101), xlabel="duration [µs]", ylabel="share below [%]")
    ax.set_xlim(x.min(), x.max())
    _plain_log(ax)
    ax.legend(loc="lower right")
    return ax


def steps(ax: Axes, table: pd.DataFrame) -> Axes:
    """Draw wall and device-busy time of each step; outliers are marked.

    Parameters
    ----------
    ax : Axes
        Time [ms] against the number of the step.
    table : DataFrame
        ``step, wall_s, busy_s, note``.
    """
    x, wall, busy = table["step"], table["wall_s"] * 1e3, table["busy_s"] * 1e3
    marker = "o" if len(table) <= 60 else ""
    ax.plot(x, wall, marker=marker, markersize=4, color=_BLUE, label="wall")
    ax.plot(x, busy, "--", marker=marker and "s", markersize=4, color=_ORANGE, label="device-busy")
    median = float(wall.median())
    ax.axhline(median, color=_GREY, linewidth=1, linestyle=":",
               label=f"median wall {median:.4g} ms")  # fmt: skip
    odd = table["note"] != "ordinary"
    if odd.any():
        ax.plot(x[odd], wall[odd], "D", markersize=8, mfc="none", mec=_INK, label="outlier")
    ax.set(xlabel="step", ylabel="time [ms]")
    ax.set_ylim(0, 1.15 * float(max(wall.max(), busy.max())))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)
    return ax


def save_report_figures(
    folder: Path, report: Report, w: Workload, arch: Arch | None
) -> dict[str, Path]:
    """Draw every figure of a report that has data; return the PNG files by name of the figure.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    written = {}
    with rc_context(dict(STYLE)):
        for figure in (f for s in report.sections for f in s.figures):
            if not len(figure.data):
                continue
            canvas = _drawn(figure, w, arch)
            FigureCanvasAgg(canvas)
            written[figure.name] = folder / f"{figure.name}.png"
            with whole_file(written[figure.name]) as temporary:
                canvas.savefig(temporary, dpi=_DPI, format="png")
    return written


def _drawn(figure: Figure, w: Workload, arch: Arch | None) -> Canvas:
    """Return the canvas of a figure of a report."""
    data = figure.data
    if not isinstance(data, pd.DataFrame):
        return _panels(
            data, ("gaps", "idle time") if figure.name == "gaps" else ("launches", "time")
        )
    if figure.name in ("durations", "steps"):
        canvas, ax = _canvas(8.5, 3.6)
        (durations if figure.name == "durations" else steps)(ax, data)
        return canvas
    canvas, ax = _canvas(8.5, 6.8)
    if figure.name == "roofline_normalised" or arch is None:
        normalised_roofline(ax, data)
    elif figure.name == "roofline_physical":
        plots.roofline(ax, w, arch)
        title = ax.get_title("left").partition("\n")[2]
        ax.set_title(f"{_ascii(w.name)}, measured on {arch.title}\n{title}", parse_math=False)
    else:
        kernel_roofline(ax, data, arch)
    return canvas


def _canvas(width: float, height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas((width, height), layout="constrained")
    return canvas, canvas.subplots()


def _panels(found: tuple[Histogram, ...], parts: tuple[str, str]) -> Canvas:
    """Return histograms side by side, three a row."""
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    width = 3.4 * columns if columns > 1 else 6
    canvas = Canvas((width, 2.35 * rows + 0.4), layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False).reshape(-1)
    for i, panel in enumerate(panels):
        if i >= len(found):
            panel.remove()
            continue
        histogram(panel, found[i], parts)
        if i % columns:
            panel.set_ylabel("")
    handles = panels[0].get_legend_handles_labels()[0]
    canvas.legend(handles=handles, loc="outside lower center", ncols=2)
    return canvas
