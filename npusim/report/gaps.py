"""When the device has nothing to do: gaps between operations, on all streams together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

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
    """Return when no stream of the device runs anything.

    Within a step whose operations all end before it does, active time, gaps, lead and tail add up
    to its wall time.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> g = gaps(w)
    >>> total = g.active_s.sum() + g.seconds.sum() + g.lead_s.sum() + g.tail_s.sum()
    >>> bool(np.isclose(total, w.steps.wall_s.sum()))
    True
    """
    count = len(w.steps)
    lead, tail, active = np.zeros(count), w.steps.wall_s.copy(), np.zeros(count)
    parts: list[tuple[Array, NDArray[np.intp], NDArray[np.intp]]] = []
    bounds = np.searchsorted(w["step"], np.arange(count + 1))
    for step, (low, high) in enumerate(pairwise(bounds)):
        if low == high:
            continue
        start, seconds = w["start_s"][low:high], w["duration_s"][low:high]
        order = np.argsort(start, kind="stable")
        start, end = start[order], (start + seconds)[order]
        latest = np.maximum.accumulate(end)
        # the operation that ends last of all so far
        holder = np.maximum.accumulate(np.where(end == latest, np.arange(len(end)), 0))
        idle = start[1:] - latest[:-1]
        at = np.flatnonzero(idle > _NOTHING)
        parts.append((idle[at], low + order[holder[at]], low + order[at + 1]))
        lead[step] = start[0]
        tail[step] = max(0.0, w.steps.wall_s[step] - latest[-1])
        active[step] = latest[-1] - start[0] - idle[idle > 0].sum()
    length, before, after = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return Gaps(length, before, after, lead, tail, active)


def laid_out(w: Workload, g: Gaps) -> bool:
    """Return whether a file gave no times of day, so that operations stand end to end.

    Kernel sums and counter profiles say how long kernels take, not when they run.
    """
    idle = float(g.seconds.sum() + g.lead_s.sum() + g.tail_s.sum())
    return len(w) > 1 and w.meta.get("host") != "measured" and idle <= 1e-9 * g.active_s.sum()
