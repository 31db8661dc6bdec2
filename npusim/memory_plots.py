"""What a memory is worth, as figures: DRAM traffic against its capacity, and its gain by context.

Each function draws data into an Axes and returns it, as those of `npusim.plots` do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from npusim import units
from npusim.errors import InputError

Array = NDArray[np.float64]

# column of a sweep -> (what it is called, colour, hatch)
_DRAWN: Mapping[str, tuple[str, str, str]] = MappingProxyType({
    "dram_weight_bytes": ("weights", "#0072B2", ""),
    "dram_expert_bytes": ("experts", "#56B4E9", "//"),
    "dram_kv_bytes": ("KV cache", "#D55E00", ".."),
    "dram_activation_bytes": ("activations", "#009E73", "xx"),
})  # fmt: skip
_INK = "#222222"
_LINES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))
_HALF = 0.5
_LEAST = 0.02  # of the traffic: less of it is not told


def dram_traffic(ax: Axes, table: pd.DataFrame, capacity: str, workload: str = "") -> Axes:
    """Draw the DRAM traffic of a step, by class of data, against the capacity of a memory.

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        Designs that differ in the capacity alone, as `npusim.sweeps.run.sweep` returns them.
    capacity : str
        Dotted path of the capacity.
    workload : str
        Whose traffic, where the table holds several workloads; of all by default.

    Raises
    ------
    InputError
        Designs that differ in more than the capacity.

    Examples
    --------
    >>> import npusim as ns
    >>> from matplotlib.figure import Figure
    >>> path = "memories.l2.capacity"
    >>> space = ns.Space(ns.load_arch("h200"), {path: [6e7, 2e9]}, ["graph"])
    >>> table = ns.sweep(space, ns.load_workload("paddleocr_vl_decode"))
    >>> ax = dram_traffic(Figure().subplots(), table, path)
    >>> ax.get_ylabel()
    'DRAM traffic of a step [MB]'
    """
    table = table.sort_values(capacity)
    if table[capacity].duplicated().any():
        raise InputError("designs that differ in more than the capacity", value=capacity)
    x = table[capacity].to_numpy(dtype=float)
    below, notes = np.zeros(len(x)), []
    total = table[[_column(c, workload) for c in _DRAWN]].to_numpy(dtype=float).sum(axis=1) / 1e6
    for column, (name, colour, hatch) in _DRAWN.items():
        moved = table[_column(column, workload)].to_numpy(dtype=float) / 1e6
        if not moved.any():
            continue
        ax.fill_between(x, below, below + moved, facecolor=colour, edgecolor="white", hatch=hatch,
                        linewidth=0.4, alpha=0.85, label=name)  # fmt: skip
        below = below + moved
        if moved[0] > _LEAST * float(total[0]):
            at = _half(x, moved)
            notes.append(f"{name}: " + ("no" if at is None else f"from {units.show(at, 'B', 3)}"))
            if at is not None:
                ax.axvline(at, color=colour, linestyle=":", linewidth=1.4)
    if notes:
        ax.text(0.03, 0.05, "half of it stays\n" + "\n".join(notes), transform=ax.transAxes,
                fontsize=7.5, color=_INK, va="bottom",
                bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none"})  # fmt: skip
    _capacities(ax, x)
    ax.set(xlabel=f"{capacity} [B]", ylabel="DRAM traffic of a step [MB]", ylim=(0, None))
    ax.margins(x=0)
    return ax


def gain_by_context(ax: Axes, table: pd.DataFrame, capacity: str, workload: str = "") -> Axes:
    """Draw how much faster each capacity of a memory makes a step, against the context.

    Parameters
    ----------
    ax : Axes
        Time saved [%] against ``workload.context`` [keys], one line a capacity; the smallest one is
        what the others are put beside.
    table : DataFrame
        Designs that differ in the capacity and the context alone.
    capacity, workload : str
        As for `dram_traffic`.
    """
    wall = table.pivot_table(
        index="workload.context", columns=capacity, values=_column("wall_s", workload)
    )
    smallest = wall.columns[0]
    for (marker, dashes), size in zip(_LINES * 4, wall.columns[1:], strict=False):
        gain = (1 - wall[size] / wall[smallest]) * 100
        ax.plot(wall.index, gain, marker=marker, linestyle=dashes, markersize=4,
                label=units.show(float(size), "B"))  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: f"{v:g}" if v < 1e3 else f"{v / 1024:g}k")
    )
    ax.xaxis.set_minor_formatter(NullFormatter())
    beside = units.show(float(smallest), "B")
    ax.set(xlabel="workload.context [keys]", ylabel=f"time saved beside {beside} [%]")
    ax.legend(title=capacity, fontsize=7.5, title_fontsize=7.5)
    return ax


def _column(name: str, workload: str) -> str:
    return f"{name}[{workload}]" if workload else name


def _half(x: Array, moved: Array) -> float | None:
    """Return the capacity from which half of the traffic at the smallest one is gone."""
    if (moved > _HALF * moved[0]).all():
        return None
    after = int(np.argmax(moved <= _HALF * moved[0]))
    share = (moved[after - 1] - _HALF * moved[0]) / (moved[after - 1] - moved[after])
    logs = np.log(np.maximum(x, 1.0))
    return float(np.exp(logs[after - 1] + share * (logs[after] - logs[after - 1])))


def _capacities(ax: Axes, x: Array) -> None:
    """Write capacities as powers of two would be read, on a logarithmic axis."""
    if x.min() > 0:
        ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.show(value, "B", 3)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(x[:: max(len(x) // 5, 1)])
    ax.tick_params(axis="x", labelrotation=30)
