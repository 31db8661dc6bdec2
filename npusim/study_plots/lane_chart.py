"""What host and device do over the time of a step: a lane chart, one machine above another.

A step has thousands of operations, more than a page has points. Each lane is therefore a curve of a
fixed number of places: how much of the time of each the lane is at work. Its area is the time that
it works, whatever the number of operations, and so is the size of the file bounded.

Left out: which stream an operation runs on, and what operations are (`npusim.timeline_file` writes
both).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.study_plots.axis import scale
from npusim.study_plots.style import FILLS, INK, PALE, RULE, SMALL
from npusim.timeline import Timeline

Array = NDArray[np.float64]
Spans = NDArray[np.float64]  # (N, 2): starts and ends

_PLACES = 600  # of the time axis: more than a printer tells apart over two columns
_WORK = ("work", "submit", "sync", "tail")
# lane -> fill, hatch: in the order in which they stand
_LANES = {
    "host": (FILLS[3], ""),
    "launch": (FILLS[2], "////"),
    "device": (FILLS[0], ""),
    "idle": (PALE, ""),
}
_STEP = 0.01  # of the height of a lane: less cannot be seen
_HEIGHT, _APART = 0.82, 0.75


def lanes(ax: Axes, spans: Mapping[str, Timeline], step: int = 0) -> Axes:
    """Draw what host and device do in a step, machine by machine on one time axis.

    Parameters
    ----------
    ax : Axes
        Time from the start of the step; four lanes a machine, each labelled with its share of wall
        time:

        - ``host``: it works; else it waits for the device or for room in a queue;
        - ``device``: at least one operation runs;
        - ``launch``: none runs, but one is on its way: issued and not started, or its graph or
          queue is being submitted;
        - ``idle``: none runs and none is on its way.

        Device, launch and idle add up to the wall time. Where a lane works for a part only of what
        a place of the axis stands for, its height is that part.
    spans : mapping of str to Timeline
        What each machine is called, and its replay (`npusim.lanes.timeline`), the first on top.
        Without times of issue there is neither host nor launch.
    step : int
        Which step of each.

    Raises
    ------
    InputError
        No timeline, or one that has no such step.

    Examples
    --------
    >>> import npusim as ns
    >>> from matplotlib.figure import Figure
    >>> from npusim.sides import after
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> found = after(w, ns.load_arch("h200"), "graph").timeline
    >>> ax = lanes(Figure().subplots(), {"H200, graph": found})
    >>> ax.get_xlabel(), [t.get_text().split()[0] for t in ax.get_yticklabels()]
    ('time from the start of the step [ms]', ['host', 'launch', 'device', 'idle'])
    """
    if not spans:
        raise InputError("nothing to draw", hint="give a timeline")
    found = {name: parts(timeline, step) for name, timeline in spans.items()}
    factor, unit = scale([wall for wall, _ in found.values()], "s")
    longest = max(wall for wall, _ in found.values()) / factor
    edges = np.linspace(0.0, longest, _PLACES + 1)
    at, ticks = 0.0, dict[float, str]()
    for name, (wall, of_lanes) in found.items():
        took = wall / factor
        ax.annotate(f"{name}: {took:.4g} {unit}", (0, at), xytext=(0, 2), weight="bold",
                    textcoords="offset points", va="bottom", parse_math=False)  # fmt: skip
        top = at
        for lane, pieces in of_lanes.items():
            at += 1.0
            fill, hatch = _LANES[lane]
            share = covered(pieces / factor, edges)
            kept, ends = merged(share, edges)
            ax.stairs(at - _HEIGHT * kept, ends, baseline=at, fill=True, facecolor=fill,
                      edgecolor=INK, linewidth=0.3, hatch=hatch)  # fmt: skip
            ax.plot([0, took], [at, at], color=RULE, linewidth=0.5)
            ticks[at - _HEIGHT / 2] = f"{lane} {np.diff(pieces).sum() / wall:.1%}"
        ax.plot([took, took], [top, at], color=INK, linewidth=1, linestyle="--")
        at += _APART
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set(xlim=(0, longest * 1.005), ylim=(at - _APART + 0.15, -0.9),
           xlabel=f"time from the start of the step [{unit}]",
           ylabel="lane, and its share of wall time [%]")  # fmt: skip
    ax.tick_params(axis="y", length=0, labelsize=SMALL)
    ax.grid(axis="y", visible=False)
    return ax


def parts(timeline: Timeline, step: int = 0) -> tuple[float, dict[str, Spans]]:
    """Return the wall time of a step [s], and when each of its lanes is at work.

    Returns
    -------
    wall : float
    lanes : dict of str to array, shape (N, 2)
        Starts and ends from the start of the step, apart and in order [s].

    Raises
    ------
    InputError
        No such step.
    """
    if not 0 <= step < len(timeline.steps) - 1:
        raise InputError("no such step", value=step, allowed=f"0 to {len(timeline.steps) - 2}")
    begin, end = timeline.steps[step : step + 2]
    start, finish = np.array(timeline.start), np.array(timeline.end)
    inside = (start >= begin - 1e-12) & (start < end)
    device = np.column_stack([start, finish])[inside]
    wall = np.array([[begin, end]])
    if not timeline.issued:
        busy, idle = partition([device], wall)
        return end - begin, {"device": busy - begin, "idle": idle - begin}
    host = [(s.start, s.end) for s in timeline.spans if s.what in _WORK]
    submit = [(s.start, s.end) for s in timeline.spans if s.what == "submit"]
    pending = np.column_stack([np.array(timeline.issued), start])[inside]
    coming = np.concatenate([pending, np.array(submit).reshape(-1, 2)])
    busy, launch, idle = partition([device, coming], wall)
    works, _ = partition([np.array(host).reshape(-1, 2)], wall)
    found = {"host": works, "launch": launch, "device": busy, "idle": idle}
    return end - begin, {lane: pieces - begin for lane, pieces in found.items()}


def partition(layers: list[Spans], whole: Spans) -> list[Spans]:
    """Return who owns which part of a span: the first layer that covers it, or none of them.

    Parameters
    ----------
    layers : list of array, shape (N, 2)
        Starts and ends; they may overlap.
    whole : array, shape (1, 2)
        What is shared out.

    Returns
    -------
    list of array, shape (M, 2)
        Of each layer, and last of none; together they are the whole.

    Examples
    --------
    >>> found = partition([np.array([[1.0, 3.0], [2.0, 4.0]]), np.array([[0.0, 2.0]])],
    ...                   np.array([[0.0, 5.0]]))
    >>> [part.tolist() for part in found]
    [[[1.0, 4.0]], [[0.0, 1.0]], [[4.0, 5.0]]]
    """
    low, high = float(whole[0, 0]), float(whole[0, 1])
    clipped = [np.clip(layer, low, high) for layer in layers]
    edges = np.unique(np.concatenate([whole.ravel(), *(layer.ravel() for layer in clipped)]))
    owner = np.full(len(edges) - 1, len(layers))
    for i in reversed(range(len(layers))):
        depth = np.zeros(len(edges), dtype=np.int64)
        np.add.at(depth, np.searchsorted(edges, clipped[i][:, 0]), 1)
        np.add.at(depth, np.searchsorted(edges, clipped[i][:, 1]), -1)
        owner[np.cumsum(depth)[:-1] > 0] = i
    return [_joined(edges, owner == i) for i in range(len(layers) + 1)]


def _joined(edges: Array, own: NDArray[np.bool_]) -> Spans:
    """Return the spans that neighbouring pieces make."""
    turns = np.diff(np.concatenate([[0], own.astype(np.int8), [0]]))
    return np.column_stack([edges[np.flatnonzero(turns == 1)], edges[np.flatnonzero(turns == -1)]])


def covered(spans: Spans, edges: Array) -> Array:
    """Return which share of the time between edges is inside of spans that lie apart.

    Examples
    --------
    >>> covered(np.array([[0.0, 1.0], [1.5, 3.0]]), np.array([0.0, 2.0, 3.0])).tolist()
    [0.75, 1.0]
    """
    if not len(spans):
        return np.zeros(len(edges) - 1)
    knots = spans.ravel()
    done = np.concatenate([[0.0], np.cumsum(np.diff(spans).ravel())])
    so_far = np.interp(edges, knots, np.column_stack([done[:-1], done[1:]]).ravel())
    share: Array = np.clip(np.diff(so_far) / np.diff(edges), 0.0, 1.0)
    return share


def merged(share: Array, edges: Array) -> tuple[Array, Array]:
    """Return shares and edges with neighbours as one that look the same: within half a percent.

    Examples
    --------
    >>> share, edges = merged(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 2.0, 3.0]))
    >>> share.tolist(), edges.tolist()
    ([0.0, 1.0], [0.0, 2.0, 3.0])
    """
    look = np.round(share / _STEP).astype(np.int64)
    first = np.flatnonzero(np.concatenate([[True], np.diff(look) != 0]))
    ends = np.concatenate([edges[first], edges[-1:]])
    done = np.concatenate([[0.0], np.cumsum(share * np.diff(edges))])
    area = np.diff(done[np.concatenate([first, [len(share)]])])
    return area / np.diff(ends), ends  # the area stays
