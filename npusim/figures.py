"""The figures that a sweep writes beside its results."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator

from npusim import memory_plots, plots
from npusim.arch import Arch
from npusim.atomic import whole_file
from npusim.compare import Measured, kernel_errors, measured
from npusim.load import traced_arch
from npusim.merit import MERITS
from npusim.parameters import MEMORIES
from npusim.sweeps.front import pareto
from npusim.workload import Workload

# matplotlib.rc_context(STYLE) gives figures of your own the same look.
STYLE: Mapping[Any, Any] = MappingProxyType({
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6, "legend.frameon": False, "axes.titlelocation": "left",
})  # fmt: skip
_DPI = 150
_MOST_ROOFLINES = 4
_APART = 0.18  # of the width of a panel: values closer than this cannot all be named below it
_SPLIT = ("workload.weight_bits", "workload.context")  # axes that figures of memories show apart
_COLUMNS = 4
_SQUEEZED = 4.0  # the fastest launch mode gets a row of its own if it fills less than 1 / this


def save_sweep_figures(
    folder: Path,
    table: pd.DataFrame,
    arch: Arch,
    workloads: Sequence[Workload],
    costs: Sequence[str],
    axes: Sequence[str],
    reference: pd.Series[Any],
    counts: Sequence[float] | None = None,
    on_lines: bool = True,
    whole: bool = True,
) -> list[Path]:
    """Draw a sweep and save it as PNG files, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Where to write; made if it is not there.
    table : DataFrame
        Designs as `npusim.sweeps.run.sweep` returns them.
    arch : Arch
        The nominal machine.
    workloads : sequence of Workload
        What was swept.
    costs : sequence of str
        Axes to draw step time against; all axes if there are none.
    axes : sequence of str
        Axes of the sweep.
    reference : Series
        The nominal design: ``launch``, the value of every axis (NaN where it has none), ``wall_s``.
    counts : sequence of float, optional
        How many steps of each workload the table adds up; one by default.
    on_lines : bool
        Whether some designs differ in one axis alone, as on a grid. Of drawn designs what an axis
        does by itself cannot be shown.
    whole : bool
        Whether the table has all designs, or some of a large sweep.

    Returns
    -------
    list of Path
        ``latency_cost.png`` (if a design meets the constraints), ``axis_effects.png``, and
        ``axis_effects_COST.png`` for each figure of merit among the costs that there is; where
        the traced machine is known ``roofline.png`` and ``predicted_measured.png``; for each
        capacity of a memory that is swept
        ``dram_traffic_MEMORY.png``, and ``gain_by_context_MEMORY.png`` if the context is too.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    traced = [(w, machine) for w in workloads if (machine := traced_arch(w)) is not None]
    steps = list(zip(workloads, counts or [1] * len(workloads), strict=True))
    costs = [name for name in costs if name in reference and _allowed(table)[name].notna().any()]
    figures: dict[str, Callable[[], Figure]] = {}
    if len(_allowed(table)):
        drawn = partial(_latency_cost, table, steps, costs or axes, axes, reference, whole)
        figures["latency_cost"] = drawn
    if len(table) and on_lines:
        figures["axis_effects"] = partial(_axis_effects, table, axes, reference)
    for name in costs:
        if name in MERITS and on_lines:
            of_merit = partial(_axis_effects, table, axes, reference, name)
            figures[f"axis_effects_{name}"] = of_merit
    for name in MEMORIES:
        path = f"memories.{name}.capacity"
        if path not in axes or table[path].nunique() < 2:
            continue
        there = table[table[path].notna()]
        held = _at_reference(there, [p for p in axes if p not in (path, *_SPLIT)], reference)
        if held[path].nunique() < 2:  # samples
            continue
        figures[f"dram_traffic_{name}"] = partial(_dram_traffic, held, workloads, path)
        if "workload.context" in axes and len(held["workload.context"].unique()) > 1:
            figures[f"gain_by_context_{name}"] = partial(_gain_by_context, held, workloads, path)
    if traced:
        figures["roofline"] = partial(_rooflines, traced[:_MOST_ROOFLINES], arch)
        figures["predicted_measured"] = partial(_errors, traced)
    written = []
    with rc_context(dict(STYLE)):
        for name, draw in figures.items():
            written.append(_save(draw(), folder / f"{name}.png"))
    return written


def _at_reference(
    table: pd.DataFrame, others: Sequence[str], reference: pd.Series[Any]
) -> pd.DataFrame:
    """Return the designs that are nominal (or nearest to it) in some axes, of one launch mode."""
    kept: pd.DataFrame = table[table["launch"] == table["launch"].iloc[0]]
    for path in others:
        values = kept[path].to_numpy(float)
        wanted = values[0] if np.isnan(reference[path]) else float(reference[path])
        off = np.isnan(values)
        if np.isnan(wanted) or off.all():
            kept = kept[off]
            continue
        kept = kept[values == values[np.nanargmin(np.abs(values - wanted))]]
    return kept


def _allowed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the designs that meet the constraints, all where a sweep has none."""
    return table[table["allowed"]] if "allowed" in table else table


def _dram_traffic(table: pd.DataFrame, workloads: Sequence[Workload], path: str) -> Figure:
    """Draw one panel a workload and width of weights, at the shortest context."""
    if "workload.context" in table:
        table = table[table["workload.context"] == table["workload.context"].min()]
    bits = "workload.weight_bits"
    widths = sorted(table[bits].unique(), reverse=True) if bits in table else [None]
    figure, panels = _grid(len(workloads) * len(widths), max(len(widths), 2), 3.6, 2.9)
    cases = [(w, width) for w in workloads for width in widths]
    for panel, (w, width) in zip(panels, cases, strict=True):
        rows = table if width is None else table[table[bits] == width]
        memory_plots.dram_traffic(panel, rows, path, w.name if len(workloads) > 1 else "")
        title = w.name if width is None else f"{w.name}\nweights of {width:g} bits"
        panel.set_title(title, parse_math=False)
    shown = (zip(*panel.get_legend_handles_labels(), strict=True) for panel in panels)
    handles = {label: handle for pairs in shown for handle, label in pairs}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _gain_by_context(table: pd.DataFrame, workloads: Sequence[Workload], path: str) -> Figure:
    bits = "workload.weight_bits"
    if bits in table:
        table = table[table[bits] == table[bits].max()]
    figure, panels = _grid(len(workloads), 2, 4.6, 3.4)
    for panel, w in zip(panels, workloads, strict=True):
        memory_plots.gain_by_context(panel, table, path, w.name if len(workloads) > 1 else "")
        panel.set_title(w.name, parse_math=False)
    return figure


def _save(figure: Figure, target: Path) -> Path:
    FigureCanvasAgg(figure)
    with whole_file(target) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
    return target


def _columns(count: int, most: int) -> int:
    """Return how many columns, at most `most`, fill as few rows most evenly."""
    return math.ceil(count / math.ceil(count / most))


def _grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels of a size [inch], at most `columns` a row."""
    columns = _columns(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure((width * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for unused in panels[count:]:
        unused.remove()
    return figure, list(panels[:count])


def _rooflines(traced: Sequence[tuple[Workload, Arch]], arch: Arch) -> Figure:
    figure, panels = _grid(len(traced), 2, 7.5, 6.2)
    for panel, (workload, machine) in zip(panels, traced, strict=True):
        plots.roofline(panel, workload, machine, [] if arch == machine else [arch])
    return figure


def _errors(traced: Sequence[tuple[Workload, Arch]]) -> Figure:
    figure, panels = _grid(len(traced), 3, 5.2, 6.4)
    for panel, (workload, machine) in zip(panels, traced, strict=True):
        plots.predicted_measured(panel, kernel_errors(workload, machine))
        title = f"{workload.name} on {machine.title}\n{panel.get_title('left')}"
        panel.set_title(title, parse_math=False)  # a name may hold dollar signs
    return figure


def _axis_effects(
    table: pd.DataFrame, axes: Sequence[str], reference: pd.Series[Any], column: str = "wall_s"
) -> Figure:
    """Draw the nominal launch mode, and each other in which an axis counts that does not there."""
    table = _filled(table, axes, reference)
    held = _held(table, axes, reference)
    parts = [(table, held)]
    found = plots.effects(table, axes, held, column)
    still = {a for a, change in found.items() if not plots.moves(change)}
    for launch in table["launch"].unique():
        part = table[table["launch"] == launch]
        of_launch = _held(part, axes, reference)
        found = plots.effects(part, axes, of_launch, column)
        if launch != held["launch"] and any(plots.moves(found[a]) for a in still):
            parts.append((part, of_launch))
    figure, panels = _grid(len(parts), 1, 9, 1.4 + 0.42 * (len(axes) + 1))
    for panel, (part, of_launch) in zip(panels, parts, strict=True):
        plots.axis_effects(panel, part, axes, of_launch, column)
        panel.set_title(_zero(of_launch, axes, reference, column))
    return figure


def _zero(zero: pd.Series[Any], axes: Sequence[str], reference: pd.Series[Any], column: str) -> str:
    """Say what stands at zero: the nominal design, or the nearest to it that was swept."""
    given = [a for a in axes if not np.isnan(reference[a])]
    if all(math.isclose(zero[a], reference[a], abs_tol=1e-30) for a in given):
        what = "the nominal design"
    else:
        what = "the design nearest to the nominal one"
    value, launch = zero[column], zero["launch"]
    shown = f"{value * 1e3:.4g} ms" if column == "wall_s" else f"{value:.4g} {MERITS[column]}"
    return f"one axis changed at a time; 0 is {what}: {shown}, launch {launch}"


def _filled(table: pd.DataFrame, axes: Sequence[str], reference: pd.Series[Any]) -> pd.DataFrame:
    """Return a table in which an axis that is off has the nominal value, or the first swept.

    A design in which it does not count can so be put beside one in which it does.
    """
    first = table[list(axes)].bfill().iloc[0]
    return table.fillna({p: first[p] if np.isnan(reference[p]) else reference[p] for p in axes})


def _held(table: pd.DataFrame, axes: Sequence[str], reference: pd.Series[Any]) -> pd.Series[Any]:
    """Return the design nearest to the nominal one, in its launch mode if any is swept in it.

    Nearest on all axes together, in spans: of samples, or where an axis hangs on others, what is
    nearest on each axis alone may be no design. Axes on which the nominal one has no value do not
    count.
    """
    same = table[table["launch"] == reference["launch"]]
    near = same if len(same) else table[table["launch"] == table["launch"].iloc[0]]
    far = np.zeros(len(near))
    for path in axes:
        away = np.abs(near[path].to_numpy(float) - float(reference[path]))
        if away.max() > 0:
            far += away / away.max()
    held: pd.Series[Any] = near.iloc[int(far.argmin())]
    return held


def _latency_cost(
    table: pd.DataFrame,
    steps: Sequence[tuple[Workload, float]],
    costs: Sequence[str],
    axes: Sequence[str],
    reference: pd.Series[Any],
    whole: bool = True,
) -> Figure:
    """Draw designs, and below them the fastest launch mode alone if the rest squeezes it.

    Where a sweep has constraints, those that meet them.
    """
    kept = _allowed(table)
    left_out, table = len(table) - len(kept), kept
    baselines = _baselines(steps)
    fastest = table[table["launch"] == table["launch"].iloc[int(table["wall_s"].argmin())]]
    rows = [(table, baselines)]
    low, high = _extremes(table, [], baselines)
    if _SQUEEZED * math.log(fastest["wall_s"].max() / low) < math.log(high / low):
        rows.append((fastest, []))
    width = _columns(len(costs), _COLUMNS)
    chunks = [costs[i : i + width] for i in range(0, len(costs), width)]
    height = len(rows) * len(chunks)
    figure = Figure((max(3.0 * width, 7), 2.9 * height + 0.9), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False)
    ranked = _by_effect(table, axes, reference)
    lines = [(chunk, *row) for chunk in chunks for row in rows]
    for panels, (chunk, designs, marks) in zip(grid, lines, strict=True):
        _draw_line(list(panels), chunk, designs, marks, ranked, reference)
        for unused in panels[len(chunk) :]:
            unused.remove()
    title = "time of " + " + ".join(f"{n:g} step{'s' * (n != 1)} of {w.name}" for w, n in steps)
    some = f"{left_out} designs" if whole else "designs"
    title += "" if whole else "; front, best and a sample of the designs"
    title += f"; {some} that break a constraint are left out" if left_out else ""
    figure.suptitle(textwrap.fill(title, 80), fontsize=10, parse_math=False)
    handles = grid[0][0].get_legend_handles_labels()[0]  # the first row has everything
    figure.legend(handles=handles, loc="outside lower center", ncols=max(width, 2))
    return figure


def _draw_line(
    panels: Sequence[Axes],
    costs: Sequence[str],
    designs: pd.DataFrame,
    baselines: Sequence[tuple[str, float]],
    ranked: Sequence[str],
    reference: pd.Series[Any],
) -> None:
    """Draw one row of panels that share their step times."""
    fronts = [_front(designs, cost) for cost in costs]
    low, high = _extremes(designs, fronts, baselines)
    modes = designs["launch"].unique()
    shown = reference if reference["launch"] in modes else None
    for panel, cost, front in zip(panels, costs, fronts, strict=False):
        room = max(1.05, (high / low) ** 0.03)  # of a logarithmic axis a few percent are nothing
        panel.set_ylim(low * 1e3 / room, high * 1e3 * room)
        colour = next((p for p in ranked if p != cost), None) if len(modes) == 1 else None
        there = designs[designs[cost].notna()]
        if there.empty:
            panel.set_visible(False)
            continue
        star = None if shown is None or np.isnan(shown[cost]) else shown
        plots.latency_cost(panel, there, cost, front, baselines, colour, star)
        places = np.unique(there[cost])
        if len(places) > 1 and np.diff(places).min() < _APART * np.ptp(places):
            panel.xaxis.set_major_locator(AutoLocator())
        if (legend := panel.get_legend()) is not None:
            legend.remove()
        if cost == costs[0]:
            panel.set_ylabel(f"time [ms] ({', '.join(modes)})")
        else:
            panel.set_ylabel("")
            panel.tick_params(labelleft=False)


def _front(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the designs that no other beats in step time and one cost, one of those that tie."""
    # To the picosecond: rounding errors of an axis without effect are no gain.
    plane = table[[cost, "wall_s"]].round({"wall_s": 12})
    kept: pd.DataFrame = table.loc[pareto(plane, [cost, "wall_s"]).drop_duplicates().index]
    return kept


def _by_effect(table: pd.DataFrame, axes: Sequence[str], reference: pd.Series[Any]) -> list[str]:
    """Return the axes that move the step time by more than 0.1 %, the strongest first."""
    table = _filled(table, axes, reference)
    found = plots.effects(table, axes, _held(table, axes, reference))
    spans = {path: float(np.ptp([0.0, *found[path]])) for path in axes}
    return sorted((path for path in axes if spans[path] > 1e-3), key=lambda path: -spans[path])


def _extremes(
    designs: pd.DataFrame,
    fronts: Sequence[pd.DataFrame],
    baselines: Sequence[tuple[str, float]],
) -> tuple[float, float]:
    """Return the shortest and the longest time that is drawn [s]."""
    bands = [front[["wall_low_s", "wall_high_s"]].to_numpy(float).ravel() for front in fronts]
    lines = [seconds for _, seconds in baselines]
    times = np.concatenate([designs["wall_s"].to_numpy(float), lines, *bands])
    return float(np.nanmin(times)), float(np.nanmax(times))


def _baselines(steps: Sequence[tuple[Workload, float]]) -> list[tuple[str, float]]:
    """Return the measured times that every workload has, summed over all steps."""
    each = [(_measured_walls(w), count) for w, count in steps]
    common = [key for key in each[0][0] if all(key in walls for walls, _ in each)]
    sums = {key: sum(count * walls[key] for walls, count in each) for key in common}
    return [(f"{key}: {1e3 * total:.4g} ms", total) for key, total in sums.items()]


def _measured_walls(workload: Workload) -> dict[str, float]:
    """Return measured step times by label; a published one stands for that of the trace [s]."""
    walls = [m for m in measured(workload) if m.quantity == "wall" and m.value_s > 0]
    published = {(m.device, m.launch) for m in walls if not m.traced}
    return {
        _label(m): m.value_s for m in walls if not m.traced or (m.device, m.launch) not in published
    }


def _label(m: Measured) -> str:
    """Return a short name, e.g. ``H200 eager (measured, unprofiled)``."""
    device = m.device.removeprefix("NVIDIA ").removeprefix("GeForce ")
    words = ["measured"]
    if "unprofiled" in m.source:
        words.append("unprofiled")
    elif "profiler" in m.source + m.note:
        words.append("profiled")
    if not m.same_kernels:
        words.append("other kernels")
    return f"{device} {m.launch} ({', '.join(words)})"
