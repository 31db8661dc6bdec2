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
    sync : array of bool, shape (K,)
        Whether the host waits after the launch.
    tail : float
        Host work after the last launch or wait [us].
    """

    work: Array
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
    count = len(calls)
    lane = Lane(np.zeros(count), np.zeros(count), np.zeros(count, dtype=bool), 0.0)
    anchor, latest = start, -np.inf
    events = sorted(
        [(calls[i, 0], 0, i) for i in range(count)]
        + [(waits[j, 0], 1, j) for j in range(len(waits))]
    )
    last = -1
    for at, is_wait, i in events:
        if not is_wait:
            lane.work[i] = max(at - anchor, 0.0)
            anchor, last = max(at, anchor), i
            latest = max(latest, done[i])
            if blocking[i] and done[i] <= calls[i, 1]:
                lane.sync[i] = True
                anchor = max(anchor, done[i])
        elif last >= 0 and latest <= waits[i, 1] and not lane.sync[last]:
            lane.sync[last] = True
            lane.presync[last] = max(at - anchor, 0.0)
            anchor = max(at, latest, anchor)
    return Lane(lane.work, lane.presync, lane.sync, max(stop - anchor, 0.0))
