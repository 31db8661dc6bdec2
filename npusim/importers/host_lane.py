"""What the host did, taken out of a trace: work before each launch, and where it waited.

The host is read as one lane in order of time. Between two calls it works; in a call that returns
only when the device is done (a synchronisation, a copy to pageable memory) it waits. Waits are
taken out, so that replay can put them back where another device makes the host wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lane:
    """The host of one step.

    Attributes
    ----------
    work, presync : array, shape (K,)
        Host work before each launch call, and from it to the wait that follows [us].
    since : array, shape (K,)
        When the work before each launch call begins [us].
    sync : array of bool, shape (K,)
        Whether the host waits after the launch.
    tail : float
        Host work after the last launch or wait [us].
    """

    work: Array
    since: Array
    presync: Array
    sync: NDArray[np.bool_]
    tail: float


def host_lane(
    start: float, stop: float, calls: Array, done: Array, waits: Array, blocking: NDArray[np.bool_]
) -> Lane:
    """Split one step of the host into work and waits.

    Parameters
    ----------
    start, stop : float
        The step on the host's clock [us].
    calls : array, shape (K, 2)
        Start and end of each launch call, in order [us].
    done : array, shape (K,)
        When the device has finished each of them [us].
    waits : array, shape (N, 2)
        Start and end of each synchronisation call, in order [us].
    blocking : array of bool, shape (K,)
        Launch calls that may themselves wait (copies).

    Returns
    -------
    Lane
        ``work.sum() + presync.sum() + tail`` plus the waits is ``stop - start``.
    """
    order = np.argsort(calls[:, 0], kind="stable")
    at, end, finished = calls[order, 0], calls[order, 1], done[order]
    blocked = blocking[order] & (finished <= end)
    # When the host goes on after a call, and after the wait that follows it if there is one.
    goes_on = np.where(blocked, np.maximum(at, finished), at)
    latest = np.maximum.accumulate(finished)
    after, wait_at = _waits(at, latest, blocked, waits)
    resumes = goes_on.copy()
    resumes[after] = np.maximum(resumes[after], np.maximum(wait_at, latest[after]))
    anchor = np.maximum.accumulate(np.concatenate([[start], resumes]))
    work, since, presync = np.zeros((3, len(calls)))
    work[order], since[order] = np.maximum(at - anchor[:-1], 0.0), anchor[:-1]
    launched = np.maximum(anchor[after], goes_on[after])
    presync[order[after]] = np.maximum(wait_at - launched, 0.0)
    sync = np.zeros(len(calls), dtype=bool)
    sync[order] = blocked
    sync[order[after]] = True
    return Lane(work, since, presync, sync, max(stop - float(anchor[-1]), 0.0))


def _waits(
    at: Array, latest: Array, blocked: NDArray[np.bool_], waits: Array
) -> tuple[NDArray[np.intp], Array]:
    """Return the calls that a wait follows, and when it begins [us].

    A wait counts if all that was launched before it is done when it ends, and if the last call has
    not waited already.
    """
    last = np.searchsorted(at, waits[:, 0], "right") - 1
    known = last >= 0
    last, begins, ends = last[known], waits[known, 0], waits[known, 1]
    counts = (latest[last] <= ends) & ~blocked[last]
    after, begins = last[counts], begins[counts]
    first = np.flatnonzero(np.diff(after, prepend=-1))  # of the waits after one call
    return after[first], begins[first]
