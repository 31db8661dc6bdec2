"""Rooflines, sweeps and errors as figures: each function draws data into an Axes and returns it.

What carries meaning differs in marker or line style as well as in colour, so that a figure can be
read in grey and by readers who do not tell colours apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from npusim import units
from npusim.arch import Arch, Designs
from npusim.compare import error_of
from npusim.merit import MERITS
from npusim.models import roofline as roof_model
from npusim.parameters import PARAMETERS
from npusim.workload import Workload

Design: TypeAlias = "pd.Series[Any]"  # a row of a sweep
Changes: TypeAlias = "pd.Series[float]"  # by value of an axis

# M. Okabe, K. Ito, "Color universal design", https://jfly.uni-koeln.de/color/
_BLUE, _GREEN, _ORANGE, _RED = "#0072B2", "#009E73", "#E69F00", "#D55E00"
_PURPLE, _GREY, _INK = "#CC79A7", "#999999", "#222222"

# group -> (kinds, colour, marker); the last takes what no other names
_GROUPS: Mapping[str, tuple[str, str, str]] = MappingProxyType({
    "matrix products": ("gemv gemm grouped_gemm conv", _BLUE, "o"),
    "attention": ("attention attention_combine", _RED, "^"),
    "pointwise": ("pointwise activation rope", _GREEN, "s"),
    "reduction, norm, sort": ("reduction softmax norm splitk_reduce scan sort topk", _ORANGE, "D"),
    "data movement": ("cast copy fill cat gather scatter memcpy memset", _PURPLE, "v"),
    "other": ("", _GREY, "X"),
})  # fmt: skip
_GROUP_OF = {kind: group for group, (kinds, _, _) in _GROUPS.items() for kind in kinds.split()}
_LAUNCHES = {"eager": (_RED, "o"), "graph": (_BLUE, "s"), "queue": (_GREEN, "^")}
_DASHES: tuple[Any, ...] = ("--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4.5,
                          "fontsize": 8}  # fmt: skip
_GRID = 1000  # points closer than this share of an axis cannot be told apart: one is drawn
_NO_EFFECT = 1e-9  # relative; below it is rounding


def roofline(ax: Axes, workload: Workload, arch: Arch, others: Sequence[Arch] = ()) -> Axes:
    """Draw the measured kernels of a workload under the roofs of machines.

    Parameters
    ----------
    ax : Axes
        Throughput [TFLOP/s] against arithmetic intensity [FLOP/B], both logarithmic.
    workload : Workload
        One marker a distinct kind and shape with FLOP, its area by share of device-busy time.
        Every tensor counts its bytes once, so what lies in a cache may stand above the roof.
    arch : Arch
        The machine that was traced: datasheet roof dashed, sustained roof solid.
    others : sequence of Arch
        Machines whose sustained roofs are drawn too.

    Examples
    --------
    >>> import npusim as ns
    >>> from matplotlib.figure import Figure
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    >>> roofline(Figure().subplots(), w, h200).get_xlabel()
    'arithmetic intensity [FLOP/B]'
    """
    points = _kernels(workload)
    x = [*points["intensity"], *(top / slope for slope, top, _ in map(roof, (arch, *others)))]
    span = min(0.1, *x) / 2, max(x) * 5
    draw_roof(ax, arch, span, _INK, "-")
    draw_roof(ax, arch, span, _INK, "--", sustained=False)
    for i, other in enumerate(others):
        draw_roof(ax, other, span, (_RED, _BLUE, _GREEN)[i % 3], _DASHES[1:][i % 3])
    roofs = ax.get_legend_handles_labels()[0]
    groups = draw_groups(ax, points, ("intensity", "rate"), 3000)
    ax.set(xscale="log", yscale="log", xlim=span, xlabel="arithmetic intensity [FLOP/B]",
           ylabel="throughput [TFLOP/s]")  # fmt: skip
    named = f"{workload.name}, measured on {arch.title}\n"  # names may hold dollar signs
    ax.set_title(named + _without_flop(workload, points), parse_math=False)
    blank = ax.plot([], [], " ", label=" ")  # fills the first column; groups have the second
    ax.legend(handles=[*roofs, *blank * (len(groups) - len(roofs)), *groups], ncols=2, **_BELOW)
    return ax


def _kernels(w: Workload) -> pd.DataFrame:
    """Return one row a distinct operation with FLOP: kind, intensity, rate, share of busy time."""
    rows, inverse = w.unique()
    used = w.classified & (w["flop"] > 0) & (w.bytes_moved > 0) & (w["duration_s"] > 0)
    count = np.bincount(inverse[used], minlength=len(rows))
    time = np.bincount(inverse[used], w["duration_s"][used], len(rows))[count > 0]
    count, rows = count[count > 0], rows[count > 0]
    return pd.DataFrame({
        "kind": w.text("kind")[rows],
        "intensity": w["flop"][rows] / w.bytes_moved[rows],
        "rate": w["flop"][rows] * count / time / 1e12,
        "share": time / w["duration_s"].sum(),
    })  # fmt: skip


def _without_flop(w: Workload, points: pd.DataFrame) -> str:
    unknown = 1 - w.classified_busy_share
    rest = max(1 - float(points["share"].sum()) - unknown, 0.0)
    also = f", and {unknown:.1%} of unknown shape" if unknown > 5e-4 else ""
    return f"size: share of device time; not drawn: {rest:.1%} without FLOP (copies, casts){also}"


def _matrix_type(arch: Arch) -> str | None:
    preferred = ("bf16", "fp16", *roof_model.MATRIX_DTYPES)
    return next((d for d in preferred if f"matrix.{d}.rate" in Designs(arch)), None)


def roof(arch: Arch, sustained: bool = True) -> tuple[float, float, float]:
    """Return DRAM bandwidth [TB/s], then the highest and the vector ceiling [TFLOP/s]."""
    machine, dtype = Designs(arch), _matrix_type(arch)
    if sustained:
        dram = roof_model.bandwidth(machine)
        vector = roof_model.throughput("pointwise", "fp32", machine)
        top = roof_model.throughput("gemm", dtype, machine) if dtype else vector
    else:
        dram = machine["memories.dram.bandwidth"]
        vector = roof_model.vector_peak(machine)
        top = roof_model.matrix_peak(machine, dtype) if dtype else vector
    return float(dram[0]) / 1e12, float(top[0]) / 1e12, float(vector[0]) / 1e12


def draw_roof(
    ax: Axes, arch: Arch, span: tuple[float, float], colour: str, dash: Any, sustained: bool = True
) -> None:
    """Draw the roof of a machine over a span of intensities [FLOP/B]."""
    slope, top, vector = roof(arch, sustained)
    dtype = _matrix_type(arch)
    label = (
        f"{arch.title.split(' (')[0]}, {'sustained' if sustained else 'datasheet'}: "
        f"DRAM {units.show(slope * 1e12, 'B/s', 3)}, ridge {top / slope:.3g} FLOP/B,\n"
        + (f"{dtype} matrix {units.show(top * 1e12, 'FLOP/s', 3)}, " if dtype else "")
        + f"fp32 vector {units.show(vector * 1e12, 'FLOP/s', 3)} (thin)"
    )
    look = {"color": colour, "linestyle": dash}
    x = np.array([span[0], top / slope, span[1]])
    ax.plot(x, np.minimum(x * slope, top), linewidth=1.6 if sustained else 1, label=label, **look)
    ax.plot([vector / slope, span[1]], [vector, vector], linewidth=0.8, **look)
    if sustained:
        ax.plot([top / slope], [top], "o", markersize=5, color=colour, zorder=4)


def draw_groups(ax: Axes, points: pd.DataFrame, xy: tuple[str, str], scale: float) -> list[Any]:
    """Draw points by group of kinds, area by share of time; return legend handles."""
    of, handles = points["kind"].map(_GROUP_OF).fillna("other"), list[Any]()
    for group, (_, colour, marker) in _GROUPS.items():
        part = points[of == group]
        if part.empty:
            continue
        edges = [0.5 * (share > 5e-3) for share in part["share"]]  # else small points are all edge
        ax.scatter(part[xy[0]], part[xy[1]], s=np.maximum(scale * part["share"], 10), c=colour,
                   marker=marker, alpha=0.65, edgecolors="white", linewidths=edges, zorder=3,
                   rasterized=True)  # fmt: skip
        label = f"{group}, {part['share'].sum():.1%} of time"
        handles += ax.plot([], [], marker, color=colour, label=label)
    return handles


def latency_cost(
    ax: Axes, table: pd.DataFrame, cost: str, front: pd.DataFrame | None = None,
    baselines: Sequence[tuple[str, float]] = (), colour: str | None = None,
    reference: Design | None = None,
) -> Axes:  # fmt: skip
    """Draw the step time of every design against one axis that a designer pays for.

    Parameters
    ----------
    ax : Axes
        Step time [ms] against the axis in its unit; logarithmic if times differ more than 5 times.
    table : DataFrame
        Designs as `npusim.sweeps.run.sweep` returns them; the marker tells the launch mode.
    cost : str
        Dotted path of the axis.
    front : DataFrame, optional
        Designs to ring, with error bands; steps join those that none of them beats in this plane.
    baselines : sequence of (label, seconds)
        Horizontal lines [s].
    colour : str, optional
        Another axis to colour by; by default colour tells the launch mode too.
    reference : Series, optional
        A design to mark by a star.

    Examples
    --------
    >>> import npusim as ns
    >>> from matplotlib.figure import Figure
    >>> space = ns.Space(ns.load_arch("h200"), {"memories.dram.bandwidth": [2.4e12, 4.8e12]})
    >>> table = ns.sweep(space, ns.load_workload("paddleocr_vl_decode"))
    >>> ax = latency_cost(Figure().subplots(), table, "memories.dram.bandwidth")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('memories.dram.bandwidth [TB/s]', 'step time [ms]')
    """
    scale, unit = _unit_of(cost, table[cost])
    _scatter(ax, table, cost, scale, colour)
    if front is not None and len(front):
        _draw_front(ax, front, cost, scale, float(table[cost].max()))
    if reference is not None:
        ax.plot([reference[cost] / scale], [reference["wall_s"] * 1e3], "*", markersize=11,
                color=_ORANGE, markeredgecolor=_INK, zorder=6, label="nominal design")  # fmt: skip
    for i, (label, seconds) in enumerate(sorted(baselines, key=lambda b: -b[1])):
        ax.axhline(seconds * 1e3, color=_INK, linestyle=_DASHES[i % 4], linewidth=1, label=label)
    times = [table["wall_s"].min(), table["wall_s"].max(), *(seconds for _, seconds in baselines)]
    if max(times) > 5 * min(times):
        ax.set_yscale("log")
        _plain_ticks(ax.yaxis)
    if table[cost].nunique() <= 6:  # few enough to name each
        ax.set_xticks(np.unique(table[cost]) / scale)
    ax.set(xlabel=f"{cost} [{unit}]", ylabel="step time [ms]")
    ax.legend(ncols=2, **_BELOW)
    return ax


def _unit_of(path: str, values: Any) -> tuple[float, str]:
    """Return factor and name of the unit in which the values of a path read best."""
    if path in MERITS:
        return 1.0, MERITS[path]
    unit = PARAMETERS[path].unit if path in PARAMETERS else "1"
    name = units.show(float(np.max(values)), unit).partition(" ")[2]
    return (units.parse(f"1 {name}", unit), name) if name else (1.0, "1")


def _plain_ticks(*logarithmic: Axis) -> None:
    """Write ticks as plain numbers, at 1, 2 and 5 of each decade."""
    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _thinned(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return one of the designs that would be drawn at the same place in the same look."""
    keys = table[list(columns)].assign(wall_s=np.log(table["wall_s"]))
    for name in columns[1:3]:
        values = keys[name] - keys[name].min()
        keys[name] = np.round(values / (values.max() or 1.0) * _GRID)
    return table.loc[~keys.duplicated(), list(columns)]


def _scatter(ax: Axes, table: pd.DataFrame, cost: str, scale: float, colour: str | None) -> None:
    also = [colour] if colour is not None and colour != cost else []
    drawn = _thinned(table, ["launch", cost, "wall_s", *also])
    alpha = float(np.clip(20 / np.sqrt(len(drawn)), 0.25, 0.8))
    look: dict[str, Any] = {"s": 10, "linewidths": 0, "alpha": alpha, "rasterized": True}
    factor, unit = _unit_of(colour, table[colour]) if colour is not None else (1.0, "")
    if colour is not None:
        norm = Normalize(table[colour].min() / factor, table[colour].max() / factor)
        look |= {"norm": norm, "cmap": "viridis_r"}
        ticks = MaxNLocator(4, prune="both")  # ticks at the ends would run into the next panel's
        ax.figure.colorbar(ScalarMappable(norm, "viridis_r"), ax=ax, location="top", aspect=30,
                           pad=0.03, ticks=ticks, label=f"{colour} [{unit}]")  # fmt: skip
    for launch, part in drawn.groupby("launch"):
        hue, marker = _LAUNCHES.get(str(launch), (_GREY, "D"))
        fill = hue if colour is None else part[colour] / factor
        ax.scatter(part[cost] / scale, part["wall_s"] * 1e3, c=fill, marker=marker, **look)
        ax.plot([], [], marker, color=hue if colour is None else _GREY, label=str(launch))


def _draw_front(ax: Axes, front: pd.DataFrame, cost: str, scale: float, highest: float) -> None:
    ordered = front.sort_values([cost, "wall_s"], kind="stable")
    x, y = ordered[cost].to_numpy(float) / scale, ordered["wall_s"].to_numpy(float) * 1e3
    at = np.unique(np.linspace(0, len(x) - 1, 50).astype(int))  # more would be a blot
    best = np.r_[True, y[1:] < np.minimum.accumulate(y)[:-1]]
    # What costs more can do whatever costs less: the last step goes on to the end of the axis.
    ax.plot([*x[best], max(highest / scale, x[best][-1])], [*y[best], y[best][-1]],
            color=_INK, drawstyle="steps-post", zorder=4, label="fastest at its cost")  # fmt: skip
    ax.plot(x[at], y[at], "o", markersize=5, mfc="none", mec=_INK, zorder=5)
    if "wall_low_s" in ordered and ordered["wall_low_s"].notna().all():
        low, high = (1e3 * ordered[f"wall_{end}_s"].iloc[at] for end in ("low", "high"))
        ax.vlines(x[at], low, high, color=_INK, linewidth=0.8, alpha=0.6, label="its error band")


def axis_effects(
    ax: Axes, table: pd.DataFrame, axes: Sequence[str], reference: Design, column: str = "wall_s"
) -> Axes:
    """Draw how far each axis alone moves the step time or another figure, the widest on top.

    Parameters
    ----------
    ax : Axes
        Change of the step time [%]: one bar an axis, one for the launch mode.
    table : DataFrame
        Designs as `npusim.sweeps.run.sweep` returns them.
    axes : sequence of str
        Dotted paths.
    reference : Series
        The design at which all other axes are held; where its value is not swept, the nearest is.
    column : str
        The figure, small is better.

    Examples
    --------
    >>> import npusim as ns
    >>> from matplotlib.figure import Figure
    >>> space = ns.Space(ns.load_arch("h200"), {"memories.dram.bandwidth": [2.4e12, 4.8e12]})
    >>> table = ns.sweep(space, ns.load_workload("paddleocr_vl_decode"))
    >>> ax = axis_effects(Figure().subplots(), table, ["memories.dram.bandwidth"], table.iloc[1])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['launch', 'memories.dram.bandwidth']
    """
    found = effects(table, axes, reference, column)
    reach = {name: np.array([0.0, *change]) for name, change in found.items()}
    names = sorted(found, key=lambda name: np.ptp(reach[name]))
    sizes = [0.0, *sorted(float(np.abs(changes).max()) for changes in reach.values())]
    # One huge bar would leave nothing of the others to see: it is cut, and says so.
    cut = 2 * sizes[-2] if 0 < 4 * sizes[-2] < sizes[-1] else sizes[-1]
    for row, name in enumerate(names):
        _draw_effect(ax, row, name, found[name], cut)
    ends = 100 * np.clip(np.concatenate(list(reach.values())), -cut, cut)
    pad = max(0.55 * float(np.ptp(ends)), 1.0)  # room for what is written beside the bars
    ax.axvline(0, color=_INK, linewidth=1)
    of_time = "change of the time [%], slower hatched"
    ax.set_xlabel(of_time if column == "wall_s" else f"change of {column} [%], more of it hatched")
    ax.set_xlim(ends.min() - pad, ends.max() + pad)
    ax.set(ylim=(-0.6, len(names) - 0.4), yticks=range(len(names)), yticklabels=names)
    ax.grid(axis="y", visible=False)
    return ax


def effects(
    table: pd.DataFrame, axes: Sequence[str], reference: Design, column: str = "wall_s"
) -> dict[str, Changes]:
    """Return the relative change of the step time by value, for each axis and for ``launch``.

    Parameters are those of `axis_effects`; each change is sorted, the fastest value first.
    """
    match = _matches(table, axes, reference)
    zero = nearest(table, axes, reference)
    base = float(reference[column] if zero is None else zero[column])
    found = {}
    for name in match:
        rows = table[np.logical_and.reduce([match[other] for other in match if other != name])]
        found[name] = rows.drop_duplicates(name).set_index(name)[column].sort_values() / base - 1
    return found


def nearest(table: pd.DataFrame, axes: Sequence[str], reference: Design) -> Design | None:
    """Return the design of a table that is nearest to another on every axis, None if there is none.

    Parameters are those of `axis_effects`.
    """
    held = table[np.logical_and.reduce(list(_matches(table, axes, reference).values()))]
    return held.iloc[0] if len(held) else None


def _matches(
    table: pd.DataFrame, axes: Sequence[str], reference: Design
) -> dict[str, NDArray[np.bool_]]:
    """Return which designs are nearest to another, on each axis and in launch mode."""
    same = (table["launch"] == reference["launch"]).to_numpy()
    same = same if same.any() else (table["launch"] == table["launch"].iloc[0]).to_numpy()
    match: dict[str, NDArray[np.bool_]] = {"launch": same}
    for path in axes:
        distance = np.abs(table[path].to_numpy(float) - float(reference[path]))
        match[path] = distance <= distance.min() * (1 + 1e-9)
    return match


def moves(change: Changes) -> bool:
    """Return whether an axis changes the step time at all."""
    return len(change) > 1 and float(np.ptp(change.to_numpy())) >= _NO_EFFECT


def _draw_effect(ax: Axes, row: int, name: str, change: Changes, cut: float) -> None:
    """Draw one bar from the fastest to the slowest value, both written at its ends."""
    unit = PARAMETERS[name].unit if name in PARAMETERS else None
    texts = [units.show(float(v), unit) if unit else str(v) for v in change.index]
    if not moves(change):
        few = "no two designs differ in it alone" if change.empty else f"{texts[0]} only"
        text = "no effect here" if len(change) > 1 else few
        ax.annotate(text, (0, row), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize="small", color="#555555")  # fmt: skip
        return
    for at, side, colour, hatch in ((0, -1, _BLUE, ""), (-1, 1, _ORANGE, "////")):
        end = float(change.iloc[at])
        shown = min(max(end, -cut), cut)
        ax.barh(row, 100 * shown, height=0.55, color=colour, hatch=hatch, edgecolor="white")
        if shown != end:  # where the bar is cut
            ax.text(85 * shown, row, "//", ha="center", va="center", backgroundcolor="white")
        percent = f"{100 * end:+.2g}%" if abs(end) < 0.0995 else f"{100 * end:+.0f}%"
        label = f"{texts[at]}  {percent}" + (" (bar cut)" if shown != end else "")
        ax.annotate(label, (100 * shown, row), xytext=(5 * side, 0), textcoords="offset points",
                    va="center", ha="right" if side < 0 else "left", fontsize="small")  # fmt: skip


def predicted_measured(ax: Axes, errors: pd.DataFrame) -> Axes:
    """Draw predicted against measured device time, operations of one kernel and cost as one point.

    Parameters
    ----------
    ax : Axes
        Predicted against measured device time [us], both logarithmic.
    errors : DataFrame
        One row an operation, as `npusim.compare.kernel_errors` returns them. A point stands at
        the median of what was measured, its area by share of the measured time.

    Examples
    --------
    >>> import npusim as ns
    >>> from matplotlib.figure import Figure
    >>> from npusim.compare import kernel_errors
    >>> errors = kernel_errors(ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200"))
    >>> predicted_measured(Figure().subplots(), errors).get_xlabel()
    'measured device time [µs]'
    """
    grouped = errors.groupby(["kernel", "kind", "predicted_s"], as_index=False)["measured_s"]
    points = grouped.agg(["median", "sum"])
    points = points.assign(share=points["sum"] / points["sum"].sum(),
                           y=points["predicted_s"] * 1e6, x=points["median"] * 1e6)  # fmt: skip
    both = [*points["x"], *points["y"]] or [1.0, 100.0]
    ends = np.array([min(both) / 1.6, max(both) * 1.6])
    ax.fill_between(ends, ends * 0.75, ends * 1.25, color="#DDDDDD", label="within 25%")
    ax.plot(ends, ends, color=_INK, linewidth=1, label="predicted = measured")
    lines = ax.get_legend_handles_labels()[0]
    groups = draw_groups(ax, points, ("x", "y"), 1500)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends,
           xlabel="measured device time [µs]", ylabel="predicted device time [µs]")  # fmt: skip
    _plain_ticks(ax.xaxis, ax.yaxis)
    ax.set_title("no operation whose shapes are known")
    if len(errors):
        e = error_of(errors)
        ax.set_title(f"{e.operations} operations: absolute error {e.median_ape:.0%} median, "
                     f"{e.p90_ape:.0%} p90;\nsum of device times {e.busy_error:+.1%}")  # fmt: skip
    ax.legend(handles=[*lines, *groups], ncols=2, **_BELOW)
    return ax
