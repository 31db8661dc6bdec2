"""What the host called in a Kineto trace: who launched what, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.importers import nesting
from npusim.importers.kineto_events import Codes, Floats, Short
from npusim.importers.kineto_scan import Trace
from npusim.workload import HostCosts


@dataclass(frozen=True)
class Calls:
    """Operators and runtime calls of all threads, each with the call that it began in.

    Attributes
    ----------
    thread : array, shape (N,)
        Number of its thread, ascending.
    start, length : array, shape (N,)
        By thread and start [us].
    name, shape, parent : array, shape (N,)
        Numbers of name and arguments; index of the operator around it, -1 for none.
    is_operator : array of bool, shape (N,)
    row : array, shape (N,)
        Row among the operators, or among the runtime calls.
    """

    thread: Short
    start: Floats
    length: Floats
    name: Short
    shape: Short
    parent: Codes
    is_operator: NDArray[np.bool_]
    row: Short

    def __len__(self) -> int:
        return len(self.start)


def calls_of(trace: Trace) -> Calls:
    """Return the host's calls; those without a time are left out."""
    operators, runtime = trace.operators, trace.runtime
    is_operator = np.arange(len(operators) + len(runtime)) < len(operators)
    start = np.concatenate([operators.start, runtime.start])
    length = np.nan_to_num(np.concatenate([operators.length, runtime.length]))
    thread = np.concatenate([operators.thread, runtime.thread])
    # A runtime call is a moment: traces in whole microseconds may put it at its operator's end.
    stop = np.where(is_operator, start + length, start)
    order = nesting.order(thread, start, stop)
    order = order[np.isfinite(start[order])]
    start, is_operator, thread = start[order], is_operator[order], thread[order]
    parent = nesting.parents(thread, start, stop[order], is_operator)
    rows = [np.arange(len(s), dtype=np.int32) for s in (operators, runtime)]
    name = np.concatenate([operators.name, runtime.name])
    shape = np.concatenate([operators.detail, np.full(len(runtime), -1, dtype=np.int32)])
    return Calls(thread, start, length[order], name[order], shape[order], parent, is_operator,
                 np.concatenate(rows)[order])  # fmt: skip


def host_costs(
    calls: Calls, names: list[str], spans: list[tuple[float, float]]
) -> HostCosts | None:
    """Return where the host spent the steps, or None if it called nothing in them.

    Parameters
    ----------
    calls : Calls
    names : list of str
        What the numbers of names stand for.
    spans : list of (start, stop)
        The steps, in order [us].
    """
    starts = np.array([start for start, _ in spans])
    stops = np.array([stop for _, stop in spans])
    step = np.searchsorted(starts, calls.start, "right") - 1
    counted = (step >= 0) & (calls.start < stops[np.maximum(step, 0)])
    if not counted.any():
        return None
    held = calls.parent >= 0
    around = calls.parent[held]
    # What a call does after its parent has ended is not the parent's time.
    left = calls.start[around] + calls.length[around] - calls.start[held]
    inner = np.bincount(around, np.clip(calls.length[held], 0.0, np.maximum(left, 0.0)),
                        len(calls))  # fmt: skip
    own = np.maximum(calls.length - inner, 0.0)
    outermost = _outermost(calls)
    key = calls.name.astype(np.int64) * 2 + calls.is_operator
    key = key[counted]
    times = np.bincount(key)
    kinds = np.flatnonzero(times)
    whole = calls.length * outermost
    self_s, total_s = (
        np.bincount(key, spent[counted])[kinds].astype(np.float64) * 1e-6 for spent in (own, whole)
    )
    order = np.argsort(-self_s, kind="stable")
    return HostCosts(
        tuple(names[k // 2] for k in kinds[order]),
        tuple("operator" if k % 2 else "runtime" for k in kinds[order]),
        times[kinds][order], self_s[order], total_s[order],
    )  # fmt: skip


def _outermost(calls: Calls) -> NDArray[np.bool_]:
    """Return which calls are in no call of the same name."""
    outermost = np.ones(len(calls), dtype=bool)
    held = calls.parent >= 0
    holds = np.zeros(int(calls.name.max(initial=0)) + 1, dtype=bool)
    holds[calls.name[calls.parent[held]]] = True
    live = np.flatnonzero(held & holds[calls.name])
    above, name = calls.parent[live], calls.name[live]
    for _ in range(nesting.DEEPEST):
        if not len(live):
            break
        same = calls.name[above] == name
        outermost[live[same]] = False
        above = calls.parent[above]
        on = (above >= 0) & ~same
        live, above, name = live[on], above[on], name[on]
    return outermost
