"""What ``npusim serve-sim`` writes: a summary, a row a request, figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from npusim import serving_plots, units
from npusim.atomic import whole_folder
from npusim.figures import STYLE
from npusim.serving_block import axis_text, axis_unit
from npusim.serving_study import Run

_DPI = 150
_MOST_FIGURES = 12
FILES = ("summary.json", "requests.parquet")


def save_runs(
    runs: Sequence[Run], content: Mapping[str, Any], folder: Path, figures: bool
) -> list[str]:
    """Write runs into a folder, all files or none; return their names.

    Parameters
    ----------
    runs : sequence of Run
    content : mapping
        What ``--json`` prints.
    folder : Path
    figures : bool
    """
    drawn = dict(_figures(runs)) if figures else {}
    earlier = [f"run_{i}.png" for i in range(_MOST_FIGURES)]  # of runs that are no more
    names = dict.fromkeys((*FILES, *earlier, *drawn))
    with whole_folder(folder, names) as temporary:
        (temporary / "summary.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        requests_table(runs).to_parquet(temporary / "requests.parquet", index=False)
        for name, figure in drawn.items():
            FigureCanvasAgg(figure)
            figure.savefig(temporary / name, dpi=_DPI, format="png")
    return [*FILES, *drawn]


def requests_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row a request that was answered, of all runs."""
    tables = []
    for run in runs:
        o = run.middle
        table = pd.DataFrame({
            **{f"axis.{name}": [value] * len(o) for name, value in run.axes.items()},
            "number": o.number, "client": o.client, "prompt": o.prompt, "output": o.output,
            "sent_s": o.sent_s, "entered_s": o.entered_s, "first_token_s": o.first_s,
            "last_token_s": o.done_s, "stops": o.stops, "cached": o.cached,
        })  # fmt: skip
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _figures(runs: Sequence[Run]) -> list[tuple[str, Figure]]:
    with rc_context(dict(STYLE)):
        found = [(f"run_{i}.png", _run(run)) for i, run in enumerate(runs[:_MOST_FIGURES])
                 if len(run.middle)]  # fmt: skip
        return [*found, *_by_axes(runs)]


def _run(run: Run) -> Figure:
    figure = Figure((11, 6.4), layout="constrained")
    panels = figure.subplots(2, 2).reshape(-1)
    band = [o for o in (run.low, run.high) if o is not None]
    for panel, what in zip(panels, ("ttft", "tpot", "latency"), strict=False):
        measured = None if run.measured is None else run.measured.samples[what]
        serving_plots.waits(panel, run.middle, what, band, measured)
    serving_plots.over_time(panels[3], run.middle, run.policy.blocks, run.engines)
    if run.axes:
        where = ", ".join(f"{name} = {axis_text(name, v)}" for name, v in run.axes.items())
        figure.suptitle(where, x=0.01, ha="left", fontsize=9)
    return figure


def _by_axes(runs: Sequence[Run]) -> list[tuple[str, Figure]]:
    """Return a figure for each axis of numbers along which nothing else varies."""
    found = []
    for axis in runs[0].axes:
        others = {tuple(v for n, v in run.axes.items() if n != axis) for run in runs}
        values = [run.axes[axis] for run in runs]
        if (
            len(others) > 1
            or len(set(values)) < 2
            or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            or axis_unit(axis) in units.CHOICES
        ):
            continue
        label, scale = _scaled(axis, max(values))
        figure = Figure((11, 3.6), layout="constrained")
        for panel, what in zip(figure.subplots(1, 3), ("ttft", "tpot", "latency"), strict=True):
            points = {run.axes[axis] / scale: run.middle.summaries()[what] for run in runs
                      if what in run.middle.summaries()}  # fmt: skip
            if points:
                serving_plots.by_axis(panel, label, dict(sorted(points.items())), what.upper()
                                      if what != "latency" else "latency")  # fmt: skip
        found.append((f"by_{axis.replace('.', '_')}.png", figure))
    return found


def _scaled(axis: str, most: float) -> tuple[str, float]:
    """Return an axis with its unit, and what that is in SI units."""
    unit = axis_unit(axis)
    symbol = units.show(most, unit).partition(" ")[2]
    return (f"{axis}, {symbol}", units.parse(f"1 {symbol}", unit)) if symbol else (axis, 1.0)
