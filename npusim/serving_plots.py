"""Figures of serving: what requests waited, and what engines did over time.

Each function takes an Axes and data, and does no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from npusim.latency import Latency
from npusim.serving import Outcome
from npusim.serving.outcome import Course

Array = NDArray[np.float64]

# M. Okabe, K. Ito, "Color universal design", https://jfly.uni-koeln.de/color/
_BLUE, _ORANGE, _RED, _INK = "#0072B2", "#E69F00", "#D55E00", "#222222"
_MARKED = {"mean": (_INK, "o", "-"), "p50": (_BLUE, "s", "--"), "p95": (_ORANGE, "^", "-."),
           "p99": (_RED, "D", ":")}  # fmt: skip
_PARTS = 200


def waits(
    ax: Axes, outcome: Outcome, what: str, band: Sequence[Outcome] = (),
    measured: Array | None = None,
) -> Axes:  # fmt: skip
    """Draw which share of requests waited no longer.

    Parameters
    ----------
    ax : Axes
    outcome : Outcome
    what : {"ttft", "tpot", "latency"}
    band : sequence of Outcome
        The same at both ends of the band of step times.
    measured : array, optional
        What a log says [s].
    """
    x, share = _curve(getattr(outcome, f"{what}_s"))
    ends = [_curve(getattr(o, f"{what}_s"))[0] for o in band]
    if not len(x):
        ax.text(0.5, 0.5, "no request has one", transform=ax.transAxes, ha="center")
    known = [curve for curve in (x, *ends, measured) if curve is not None and len(curve)]
    scale, unit = _unit(max((float(np.nanmax(curve)) for curve in known), default=0.0))
    if len(ends) == 2 and len(x) and len(ends[0]) == len(ends[1]):
        ax.fill_betweenx(_curve(ends[0][1:])[1], scale * ends[0], scale * ends[1], color=_BLUE,
                         alpha=0.18, linewidth=0, label="band of step times")  # fmt: skip
    ax.plot(scale * x, share, color=_BLUE, label="predicted")
    if measured is not None:
        x_measured, share_measured = _curve(measured)
        ax.plot(scale * x_measured, share_measured, color=_INK, linestyle="--", label="measured")
    ax.set_xlabel({"ttft": "time to the first token", "tpot": "time per output token",
                   "latency": "time to the last token"}[what] + f", {unit}")  # fmt: skip
    ax.set_ylabel("share of requests")
    ax.set_ylim(0, 1)
    if len(x) and x[-1] > 50 * max(float(np.median(x)), 1e-12) and x[0] > 0:
        ax.set_xscale("log")
    ax.legend(loc="lower right")
    return ax


def over_time(ax: Axes, outcome: Outcome, blocks: int = 0, engines: int = 1) -> Axes:
    """Draw requests that ran and waited over time and, if there is a pool, how full it was.

    Parameters
    ----------
    ax : Axes
    outcome : Outcome
    blocks : int
        Of the pool of each engine that answers; 0: without end.
    engines : int
        That answer: the last ones of the outcome.
    """
    scale, unit = _unit(outcome.end_s)
    edges = np.linspace(0.0, outcome.end_s, _PARTS + 1)
    t = scale * edges[1:]
    every = outcome.engines
    ax.plot(t, _over(every, "running", edges), color=_BLUE, label="running")
    ax.plot(t, _over(every, "waiting", edges), color=_RED, linestyle="--", label="waiting")
    ax.set_xlabel(f"time, {unit}")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    if blocks:
        right = ax.twinx()
        right.grid(False)
        right.spines["right"].set_visible(True)
        held = 100 * _over(every[-engines:], "blocks", edges) / (blocks * engines)
        right.plot(t, held, color=_ORANGE, linestyle="-.", label="KV cache held")
        right.set_ylabel("KV cache held, %")
        right.set_ylim(0, 105)
        handles = [*ax.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    else:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax


def by_axis(ax: Axes, name: str, points: Mapping[float, Latency], what: str) -> Axes:
    """Draw mean and percentiles of a wait over the values of an axis."""
    x = list(points)
    scale, unit = _unit(max(points[v].p99_s for v in x))
    for which, (colour, marker, dashes) in _MARKED.items():
        y = [scale * getattr(points[v], f"{which}_s") for v in x]
        ax.plot(x, y, color=colour, marker=marker, linestyle=dashes, markersize=4, label=which)
    ax.set_xlabel(name)
    ax.set_ylabel(f"{what}, {unit}")
    if min(x) > 0 and max(x) / min(x) >= 8:
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{v:g}" for v in x])
        ax.minorticks_off()
    lows = [points[v].p50_s for v in x]
    if min(lows) > 0 and max(points[v].p99_s for v in x) > 30 * min(lows):
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def _unit(most: float) -> tuple[float, str]:
    """Return what seconds are multiplied by, and the unit that results, for values up to `most`."""
    if most >= 1 or most == 0:
        return 1.0, "s"
    return (1e3, "ms") if most >= 1e-3 else (1e6, "µs")


def _curve(values: Array) -> tuple[Array, Array]:
    """Return values in order, the least of them twice, and the share that is no larger: from 0."""
    known = np.sort(values[~np.isnan(values)])
    count = len(known)
    return np.concatenate([known[:1], known]), np.arange(count + 1)[count == 0 :] / max(count, 1)


def _over(courses: Sequence[Course], name: str, edges: Array) -> Array:
    """Return means over time between edges, all engines together; nothing while they idle."""
    total = np.zeros(len(edges) - 1)
    for c in courses:
        ends = np.column_stack([c.end_s - c.seconds, c.end_s]).ravel()
        done = np.cumsum(getattr(c, name) * c.seconds)
        so_far = np.column_stack([np.concatenate([[0.0], done[:-1]]), done]).ravel()
        if len(ends):
            total += np.diff(np.interp(edges, np.maximum.accumulate(ends), so_far))
    return total / np.diff(edges)
