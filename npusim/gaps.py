"""When the device has nothing to do: gaps between operations, on all streams together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.workload import Workload

Array = NDArray[np.float64]

_NOTHING = 1e-12  # s; shorter is the rounding of times


@dataclass(frozen=True)
class Gaps:
    """Idle times of the device within steps.

    Attributes
    ----------
    seconds : array, shape (G,)
        Length of each gap between two operations of one step [s].
    before, after : array of int, shape (G,)
        The operation whose end begins the gap and the one whose start ends it.
    lead_s, tail_s : array, shape (S,)
        Idle time before the first operation of each step and after its last [s].
    active_s : array, shape (S,)
        Time in which at least one operation runs [s].
    """

    seconds: Array
    before: NDArray[np.intp]
    after: NDArray[np.intp]
    lead_s: Array
    tail_s: Array
    active_s: Array


def gaps(w: Workload) -> Gaps:
    """Return when no stream of the device runs anything, within the steps.

    In every step active time, gaps, lead and tail add up to its wall time. What the device still
    does after a step counts in the next one, if the trace says when steps began; otherwise it
    counts nowhere.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> g = gaps(w)
    >>> total = g.active_s.sum() + g.seconds.sum() + g.lead_s.sum() + g.tail_s.sum()
    >>> bool(np.isclose(total, w.steps.wall_s.sum()))
    True
    """
    begins = _begins(w)
    stops = begins + w.steps.wall_s
    start = w["start_s"] + begins[w["step"]]
    order = np.argsort(start, kind="stable")
    start, end = start[order], (start + w["duration_s"])[order]
    latest = np.maximum.accumulate(end)
    fresh = np.flatnonzero(np.concatenate([[True], start[1:] > latest[:-1] + _NOTHING]))
    on, off = start[fresh], latest[np.append(fresh[1:], len(start)) - 1]  # the device works
    # the operation that ends last of all so far
    holder = np.maximum.accumulate(np.where(end == latest, np.arange(len(end)), 0))
    inside = np.searchsorted(begins, off[:-1], "right") - 1
    step = np.maximum(inside, 0)
    # What ends just as a step begins has the step's lead behind it, not a gap.
    within = (inside >= 0) & (off[:-1] > begins[step])
    at = np.flatnonzero(within & (on[1:] < stops[step] - _NOTHING))
    first = np.minimum(np.searchsorted(off, begins, "right"), len(on) - 1)
    last = np.maximum(np.searchsorted(on, stops - _NOTHING, "left") - 1, 0)
    lead = np.clip(np.where(off[first] > begins, on[first], stops), begins, stops) - begins
    tail = stops - np.clip(np.where(on[last] < stops, off[last], begins), begins + lead, stops)
    seconds = on[at + 1] - off[at]
    between = np.bincount(inside[at], seconds, len(begins))
    active = np.maximum(w.steps.wall_s - lead - tail - between, 0.0)
    before = order[holder[fresh[at + 1] - 1]]
    return Gaps(seconds, before, order[fresh[at + 1]], lead, tail, active)


def _begins(w: Workload) -> Array:
    """Return when each step begins; where that is not known, steps stand apart, shape (S,) [s]."""
    if w.steps.start_s is not None:
        return w.steps.start_s
    extent = w.steps.wall_s.copy()
    np.maximum.at(extent, w["step"], w["start_s"] + w["duration_s"])
    return np.concatenate([[0.0], np.cumsum(extent)[:-1]])


def laid_out(w: Workload, g: Gaps) -> bool:
    """Return whether a file gave no times of day, so that operations stand end to end.

    Kernel sums and counter profiles say how long kernels take, not when they run.
    """
    idle = float(g.seconds.sum() + g.lead_s.sum() + g.tail_s.sum())
    return len(w) > 1 and w.meta.get("host") != "measured" and idle <= 1e-9 * g.active_s.sum()
