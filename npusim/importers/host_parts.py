"""What the host did before each launch, split by what the launching thread was in.

At every moment a thread is in a runtime or driver call (launch), or else in the operator that began
last (library, if that launches kernels of a library itself; framework, if it does not), or in
neither (interpreter). Library time is thus what such an operator spends outside the operators and
the runtime calls that it calls: choosing a kernel, asking heuristics, building a plan. The return
of a wait, from the end of the device's work on, is in a runtime call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.importers.kineto_events import Codes, Floats, Short
from npusim.importers.kineto_host import Calls
from npusim.workload import HOST_PARTS

# Whose kernels the framework launches by itself, of `npusim.importers.kernel_names.library`.
OF_FRAMEWORK = ("ATen", "CUB", "Triton", "PaddlePaddle", "runtime", "unknown")
_GRID = 2.0**20  # of a microsecond, about picoseconds: what lies on it adds up exactly


@dataclass(frozen=True)
class Cover:
    """How much of the time up to some moments lies in any of many intervals.

    Attributes
    ----------
    at, covered : array, shape (M,)
        Moments, ascending, and the time covered before each; linear in between.
    """

    at: Floats
    covered: Floats

    def between(self, since: Floats, until: Floats) -> Floats:
        """Return how much of some times is covered, shape of `since`."""
        before, after = (np.interp(moment, self.at, self.covered) for moment in (since, until))
        return np.maximum(after - before, 0.0)


def cover(start: Floats, stop: Floats) -> Cover:
    """Return what intervals cover together; they may overlap.

    Parameters
    ----------
    start, stop : array, shape (N,)
        In order of start; in any unit of time.

    Examples
    --------
    >>> both = cover(np.array([0.0, 2.0, 8.0]), np.array([4.0, 5.0, 9.0]))
    >>> both.between(np.array([1.0, 6.0]), np.array([8.5, 7.0])).tolist()
    [4.5, 0.0]
    """
    begin = start.copy()  # what is covered already does not count again
    np.maximum(start[1:], np.maximum.accumulate(stop)[:-1], out=begin[1:])
    some = stop > begin
    begin, end = begin[some], stop[some]
    if not len(begin):
        return Cover(np.zeros(1), np.zeros(1))
    covered = np.concatenate([[0.0], np.cumsum(end - begin)])
    return Cover(np.column_stack([begin, end]).ravel(),
                 np.column_stack([covered[:-1], covered[1:]]).ravel())  # fmt: skip


def _on_grid(times: Floats) -> Floats:
    return np.rint(times * _GRID) / _GRID


class Threads:
    """What the threads that launch were in, and what the profiler recorded on them.

    Parameters
    ----------
    calls : Calls
    library : array of int
        Operators among the calls that launch kernels of a library themselves.
    launching : array of int
        Numbers of the threads that launch.
    """

    def __init__(self, calls: Calls, library: Codes, launching: Short) -> None:
        plans = np.zeros(len(calls), dtype=bool)
        plans[library] = True
        self._of = {int(t): _Thread(calls, plans, int(t)) for t in np.unique(launching)}

    def parts(self, thread: Short, since: Floats, work: Floats) -> dict[str, Floats]:
        """Return the parts of the host's work before launches.

        Parameters
        ----------
        thread : array, shape (K,)
            Who launched.
        since, work : array, shape (K,)
            When the work before each launch begins, and how much it is [us].

        Returns
        -------
        dict of str to array, shape (K,)
            ``host_s`` and `HOST_PARTS`, which add up to it [us].
        """
        work = _on_grid(work)
        found = np.zeros((len(HOST_PARTS) - 1, len(work)))
        for code in np.unique(thread):
            rows = thread == code
            found[:, rows] = self._of[int(code)].inside(since[rows], since[rows] + work[rows])
        within = np.vstack([np.zeros(len(work)), np.minimum(found, work), work])
        launch, library, framework, interpreter = np.diff(within, axis=0)
        parts = zip(HOST_PARTS, (interpreter, framework, library, launch), strict=True)
        return {"host_s": work, **dict(parts)}

    def records(self, thread: Short, at: Floats, span: tuple[float, float]) -> Codes:
        """Return how many operators each launch of a step found recorded since the one before.

        Parameters
        ----------
        thread, at : array, shape (K,)
            Who launched and when, in order [us].
        span : (start, stop)
            The step [us]; operators count that begin in it.

        Returns
        -------
        array, shape (K,)
            Of the launching thread; those after its last launch count for that one.
        """
        found = np.zeros(len(at), dtype=np.int64)
        for code in np.unique(thread):
            rows = np.flatnonzero(thread == code)
            begins = self._of[int(code)].begins
            first, last = np.searchsorted(begins, span, "left")
            seen = np.searchsorted(begins, at[rows], "right")
            seen[-1] = max(seen[-1], last)
            found[rows] = np.diff(seen, prepend=first)
        return found


class _Thread:
    """One thread: the times in runtime calls, in these or library operators, in any call."""

    def __init__(self, calls: Calls, plans: NDArray[np.bool_], thread: int) -> None:
        low, high = np.searchsorted(calls.thread, [thread, thread + 1])
        own = slice(low, high)
        start, is_operator = calls.start[own], calls.is_operator[own]
        stop = start + calls.length[own]
        self.begins = start[is_operator]
        begin, end = start[~is_operator], stop[~is_operator]
        runtime = cover(begin, end)
        plan_begin, plan_end = _own_time(start, stop, calls.parent[own] - low, plans[own],
                                         is_operator)  # fmt: skip
        begin, end = np.concatenate([begin, plan_begin]), np.concatenate([end, plan_end])
        order = np.argsort(begin, kind="stable")
        self._covers = (runtime, cover(begin[order], end[order]), cover(start, stop))

    def inside(self, since: Floats, until: Floats) -> Floats:
        """Return how much of some times lies in each, each holding the one before [us]."""
        within = [_on_grid(c.between(since, until)) for c in self._covers]
        return np.maximum.accumulate(within)


def _own_time(
    start: Floats, stop: Floats, parent: Codes, plans: NDArray[np.bool_],
    is_operator: NDArray[np.bool_],
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return when a thread is in one of some operators and in none that this calls [us].

    It is where more of them are open than operators that began in them.
    """
    inner = np.flatnonzero((parent >= 0) & is_operator)
    inner = inner[plans[parent[inner]]]
    left = np.minimum(stop[inner], stop[parent[inner]])
    at = np.concatenate([start[plans], left, stop[plans], start[inner]])
    order = np.argsort(at, kind="stable")
    at, is_in = at[order], np.cumsum(np.repeat([1, -1], len(at) // 2)[order]) > 0
    return at[:-1][is_in[:-1]], at[1:][is_in[:-1]]
