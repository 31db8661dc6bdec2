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
    if len(band) == 2:
        ends = [np.sort(_known(getattr(o, f"{what}_s"))) for o in band]
        if len({len(e) for e in ends}) == 1 and len(ends[0]):
            ax.fill_betweenx(_shares(len(ends[0])), ends[0], ends[1], color=_BLUE, alpha=0.18,
                             linewidth=0, label="band of step times")  # fmt: skip
    ax.plot(x, share, color=_BLUE, label="predicted")
    if measured is not None:
        ax.plot(*_curve(measured), color=_INK, linestyle="--", label="measured")
    ax.set_xlabel({"ttft": "time to the first token", "tpot": "time per output token",
                   "latency": "time to the last token"}[what] + ", s")  # fmt: skip
    ax.set_ylabel("share of requests")
    ax.set_ylim(0, 1)
    if max(x, default=0) > 50 * max(np.median(x) if len(x) else 0, 1e-12):
        ax.set_xscale("log")
    ax.legend(loc="lower right")
    return ax


def over_time(ax: Axes, outcome: Outcome, blocks: int = 0) -> Axes:
    """Draw requests that ran and waited over time and, if there is a pool, how full it was."""
    course = outcome.over_time(outcome.end_s / _PARTS)
    t = course["t"]
    ax.plot(t, _filled(course["running"]), color=_BLUE, label="running")
    ax.plot(t, _filled(course["waiting"]), color=_RED, linestyle="--", label="waiting")
    ax.set_xlabel("time, s")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    if blocks:
        right = ax.twinx()
        right.grid(False)
        right.spines["right"].set_visible(True)
        right.plot(t, 100 * _filled(course["blocks"]) / blocks, color=_ORANGE, linestyle="-.",
                   label="KV cache held")  # fmt: skip
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
    for which, (colour, marker, dashes) in _MARKED.items():
        y = [getattr(points[v], f"{which}_s") for v in x]
        ax.plot(x, y, color=colour, marker=marker, linestyle=dashes, markersize=4, label=which)
    ax.set_xlabel(name)
    ax.set_ylabel(f"{what}, s")
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


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]


def _shares(count: int) -> Array:
    return np.arange(1, count + 1) / count


def _curve(values: Array) -> tuple[Array, Array]:
    known = np.sort(_known(values))
    return known, _shares(len(known))


def _filled(values: Array) -> Array:
    """Return means with those of parts without a step taken from the part before."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values))
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), 0))
    return np.where(known[last], values[last], 0.0)
