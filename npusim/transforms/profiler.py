"""A trace without its profiler: what recording took is taken out of the host's work.

The first traced step goes, if there are more: it pays for the profiler's start. Of the rest, each
operator that was recorded costs ``host.record``, which `npusim.host` takes off the host's work.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npusim.errors import InputError
from npusim.leave_out import taken
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
    (21.5, True)
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
        None, one that has no operations, or steps that are not in order.
    """
    at, s = list(steps), w.steps
    rows = np.isin(w["step"], at)
    found = np.unique(w["step"][rows]).tolist()
    if not found or found != at:
        raise InputError("not steps with operations, in order", file=w.name, value=at,
                         allowed=f"some of 0 to {len(s) - 1}")  # fmt: skip
    if len(at) == len(s):
        return w
    columns, counters, edges = taken(w, rows)
    columns["step"] = np.searchsorted(at, columns["step"])
    start = None if s.start_s is None else s.start_s[at] - s.start_s[at[0]]
    before = w.meta.get("steps_of_trace", range(len(s)))
    meta = {**w.meta, "steps_of_trace": [before[i] for i in at]}
    # Without what the host called: its costs are of all steps.
    return Workload(w.name, columns, w.labels, Steps(s.wall_s[at], s.tail_s[at], start), edges,
                    meta, counters)  # fmt: skip
