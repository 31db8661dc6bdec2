"""A trace without its profiler: what recording took is taken out of the host's work.

The first traced step goes, if there are more: it pays for the profiler's start. Of the rest, each
operator that was recorded costs ``host.record``, which `npusim.host` takes off the host's work.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npusim.errors import InputError
from npusim.workload import Steps, Workload


def unprofiled(w: Workload) -> Workload:
    """Return a workload as its program would run without the profiler.

    Parameters
    ----------
    w : Workload
        Its host measured, and with the count of operators that the profiler recorded.

    Returns
    -------
    Workload
        Without its first step if it has several; replays take ``host.record`` of the machine off
        the host's work for each recorded operator. Device times are left as they are.

    Raises
    ------
    InputError
        The host was not measured, or the trace does not say what was recorded.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_prefill"), ns.load_arch("h200")
    >>> traced, alone = (ns.replay(x, h200).wall_s for x in (w, unprofiled(w)))
    >>> round(1e3 * traced, 1), 9 < 1e3 * alone < 13  # measured without: 11.3 ms
    (21.6, True)
    """
    if w.meta.get("profiler") == "out":
        return w
    if w.meta.get("host") != "measured":
        raise InputError("no host was measured, so there is no profiler to take out of it",
                         file=w.name, hint="an eager trace tells what the host did")  # fmt: skip
    if not w["records"].any():
        raise InputError("the trace does not say how many operators its profiler recorded",
                         file=w.name, allowed="an eager PyTorch (Kineto) trace",
                         hint="if it is one, import it again")  # fmt: skip
    several = len(w.steps) > 1 and bool(w.meta.get("marked_steps"))
    kept = w if not several else only_steps(w, range(1, len(w.steps)))
    return kept.renamed(w.name, profiler="out")


def only_steps(w: Workload, steps: Sequence[int]) -> Workload:
    """Return some of the steps of a workload, by number and in order.

    Raises
    ------
    InputError
        None, or one that has no operations.
    """
    rows = np.flatnonzero(np.isin(w["step"], steps))
    if not len(rows) or len(np.unique(w["step"][rows])) < len(set(steps)):
        raise InputError("a step without operations", file=w.name, value=list(steps),
                         allowed=f"some of 0 to {len(w.steps) - 1}")  # fmt: skip
    new = np.full(len(w), -1)
    new[rows] = np.arange(len(rows))
    number = np.full(len(w.steps), -1)
    number[list(steps)] = np.arange(len(steps))
    columns = {name: column[rows] for name, column in w.columns.items()}
    columns["step"] = number[columns["step"]]
    indptr, indices = w.edges
    later = np.repeat(np.arange(len(w)), np.diff(indptr))
    kept = (new[later] >= 0) & (new[indices] >= 0)
    counts = np.bincount(new[later[kept]], minlength=len(rows))
    edges = (np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), new[indices[kept]])
    s, at = w.steps, list(steps)
    left = Steps(s.wall_s[at], s.tail_s[at], None if s.start_s is None else s.start_s[at])
    meta = {**w.meta, "steps_of_trace": at} if len(at) < len(s) else w.meta
    counters = {name: counter[rows] for name, counter in w.counters.items()}
    host = w.host if len(at) == len(s) else None  # its costs are of all steps
    return Workload(w.name, columns, w.labels, left, edges, meta, counters, host)
