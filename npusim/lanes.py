"""Replay: host lane and device streams to wall time, for many designs at once.

An operation starts when the host has issued it, its stream is free and what it depends on is
done. The host works between launches, and waits where the traced program waited and where a queue
is full. Lanes add up: on every design, wall time is host work plus host waiting, and time in which
some stream is at work plus time in which all idle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.durations import Durations
from npusim.host import Host, after_steps
from npusim.models.launch import LaunchCost, launch_cost
from npusim.models.prefetch import Buffer, depth
from npusim.timeline import Timeline
from npusim.workload import Workload

Array = NDArray[np.float64]

_BLOCK = 512
_CELLS = 4_000_000  # starts and ends that are kept at once where streams overlap


@dataclass(frozen=True)
class Replayed:
    """Totals of one workload on D designs, per step (mean over the steps), each shape (D,) [s].

    Attributes
    ----------
    wall_s : array
        From the start of a step to its end on the host.
    device_busy_s : array
        Sum of device times.
    device_active_s : array
        Time in which at least one stream is at work: the same on a single stream.
    host_busy_s : array
        Host work, waits taken out.
    launches : float
        Device operations a step.
    """

    wall_s: Array
    device_busy_s: Array
    device_active_s: Array
    host_busy_s: Array
    launches: float

    @property
    def device_idle_s(self) -> Array:
        """Time in which no stream is at work, for host, launch or dependency, shape (D,) [s]."""
        return np.maximum(self.wall_s - self.device_active_s, 0.0)

    @property
    def host_wait_s(self) -> Array:
        """Time in which the host waits for the device, shape (D,) [s]."""
        return np.maximum(self.wall_s - self.host_busy_s, 0.0)

    @property
    def idle_share(self) -> Array:
        """Share of wall time in which the device idles, for host or launch, shape (D,)."""
        # A step of operations that take no time may take none.
        share: Array = self.device_idle_s / np.maximum(self.wall_s, np.finfo(float).tiny)
        return share


def replay(workload: Workload, designs: Designs, time: Durations, launch: str) -> Replayed:
    """Replay a workload on every design.

    Parameters
    ----------
    workload : Workload
        S steps of K operations in all.
    designs : Designs
        D designs.
    time : Durations
        Device time of every operation.
    launch : {"eager", "graph", "queue"}

    Returns
    -------
    Replayed
    """
    cost, steps = launch_cost(launch, designs), len(workload.steps)
    if is_in_order(workload, launch):
        pieces, buffer = Pieces.of(workload, cost.waits), depth(designs)
        busy = time.busy()
        if buffer is not None:
            busy = _loaded_early(buffer, time, pieces.closes, cost)
        return in_order(pieces, designs, busy, cost)
    alone = len(np.unique(workload["stream"])) == 1
    size = _BLOCK if alone else max(min(_BLOCK, _CELLS // len(workload)), 1)
    parts, start = [], 0
    for block in designs.blocks(size) if designs.columns else [designs]:
        stop = start + len(block)
        # Of the block: what a launch costs may be an axis, too.
        own = launch_cost(launch, block)
        lanes = _Lanes(workload, block, time.block(slice(start, stop)), own)
        lanes.run()
        parts.append(lanes.totals())
        start = stop
    wall, busy, active, host = (np.concatenate([p[i] for p in parts]) / steps for i in range(4))
    return Replayed(wall, busy, active, host, len(workload) / steps)


def timeline(workload: Workload, designs: Designs, time: Durations, launch: str) -> Timeline:
    """Replay a workload on one design and keep when everything happens.

    Parameters
    ----------
    workload : Workload
    designs : Designs
        One design.
    time : Durations
    launch : {"eager", "graph", "queue"}

    Returns
    -------
    Timeline
    """
    found = Timeline(workload)
    _Lanes(workload, designs, time, launch_cost(launch, designs), found).run()
    return found


Totals = tuple[Array, ...]


@dataclass(frozen=True)
class Pieces:
    """A workload of one stream as it is submitted: in pieces that end where the host waits.

    Attributes
    ----------
    workload : Workload
    closes : array of bool, shape (K,)
        Which operations end a piece.
    counted : list of ((int, bool), int)
        Each size of a piece, whether it opens a step, and how many there are.
    """

    workload: Workload
    closes: NDArray[np.bool_]
    counted: list[tuple[tuple[int, bool], int]]

    @classmethod
    def of(cls, w: Workload, waits: bool) -> Pieces:
        """Return the pieces of a workload whose host does or does not wait in the middle."""
        ends = np.append(np.diff(w["step"]) != 0, True)
        closes = (w["sync"] if waits else np.zeros(len(w), dtype=bool)) | ends
        last = np.flatnonzero(closes)
        sizes, first = np.diff(last, prepend=-1), np.append(True, ends[last[:-1]])
        return cls(w, closes, _counted(sizes, first))


def is_in_order(w: Workload, launch: str) -> bool:
    """Return whether a replay is a sum: no operation is issued alone, and there is one stream."""
    return launch != "eager" and len(np.unique(w["stream"])) == 1


def in_order(pieces: Pieces, designs: Designs, busy: Array, cost: LaunchCost) -> Replayed:
    """Replay a workload that is submitted in pieces, from the time its device is busy.

    Within a piece operations follow each other at the interval; between two pieces lie the return
    of the wait and the next submission.

    Parameters
    ----------
    pieces : Pieces
    designs : Designs
        D designs.
    busy : array, shape (D,)
        Sum of the device times of all operations [s].
    cost : LaunchCost
        Of a launch mode that issues no operation by itself.
    """
    w, steps = pieces.workload, len(pieces.workload.steps)
    sync, ended, after = designs["host.sync"], int(pieces.closes.sum()), after_steps(w, designs)
    wall = busy + (len(w) - ended) * cost.interval + steps * sync
    wall = wall + after
    host = ended * (cost.host + sync) + len(w) * cost.node + after
    for (size, opens), times in pieces.counted:
        start = cost.calls(size) + cost.submit
        wall = wall + times * (start if opens else np.maximum(sync + start, cost.interval))
    wall, busy, host = (np.broadcast_to(x, len(designs)) / steps for x in (wall, busy, host))
    return Replayed(wall, busy, busy, host, len(w) / steps)


def _counted(
    sizes: NDArray[np.int64], first: NDArray[np.bool_]
) -> list[tuple[tuple[int, bool], int]]:
    """Return each size of a piece, whether it opens a step, and how many there are."""
    pairs, counts = np.unique(np.column_stack([sizes, first]), axis=0, return_counts=True)
    return [((int(s), bool(f)), int(c)) for (s, f), c in zip(pairs, counts, strict=True)]


def _loaded_early(deep: Array, time: Durations, ends: NDArray[np.bool_], cost: LaunchCost) -> Array:
    """Return the sum over operations where weights are loaded ahead within a piece, (D,) [s].

    They may be for all that is issued, where `_Lanes` looks one operation ahead.
    """
    total = np.zeros(time.table.shape[1])
    piece = np.append(0, np.flatnonzero(ends) + 1)
    for start, stop in zip(piece[:-1].tolist(), piece[1:].tolist(), strict=True):
        buffer = Buffer(deep)  # what is submitted later cannot be loaded yet
        early = [time.early_of(i) for i in range(start, stop)]
        issued: Array = np.add.reduce([ahead for _, ahead, _ in early])
        for i, (channel, ahead, gain) in zip(range(start, stop), early, strict=True):
            issued = issued - ahead
            total += buffer.run(time.of(i), channel, ahead, gain, issued)
            buffer.idle(cost.interval, issued)
    return total


class _Lanes:
    """Host and streams of a block of designs, one operation after another.

    Where there is one stream it has worked as long as its operations take; where there are
    several, when each starts and ends is kept for the steps to be laid over each other.
    """

    def __init__(
        self,
        w: Workload,
        designs: Designs,
        time: Durations,
        cost: LaunchCost,
        record: Timeline | None = None,
    ) -> None:
        self._w, self._cost, self._count, self._record = w, cost, len(designs), record
        self._host = Host(w, designs, cost, None if record is None else record.host)
        self._early = _Early(depth(designs), time)
        self._waiting, self._awaited = _cross_stream(w)
        self._spans: list[tuple[Array, Array]] | None = None
        if len(np.unique(w["stream"])) > 1:
            self._spans = []
        self._active: Array = np.zeros(self._count)

    def run(self) -> None:
        """Go through all steps."""
        stream, step = self._w["stream"].tolist(), self._w["step"].tolist()
        latest = np.zeros(self._count)
        for i in range(len(self._w)):
            if i == 0 or step[i] != step[i - 1]:
                self._close(latest)
                self._open(step[i])
                latest = np.zeros(self._count)
            end = self._operation(i, stream[i])
            latest = np.maximum(latest, end)
            self._host.after(i, stream[i], end, latest)
        self._close(latest)

    def totals(self) -> Totals:
        """Return wall, device-busy, device-active and host time over the steps, each (D,) [s]."""
        wall = self._host.wall
        busy = np.broadcast_to(self._early.busy, self._count)
        active = busy if self._spans is None else self._active
        return wall, busy, active, wall - self._host.waited

    def _open(self, step: int) -> None:
        self._streams: dict[int, Array] = {}
        self._finish: dict[int, Array] = {}  # of this step: those before are done, on other clocks
        self._early.open()
        self._host.open(step)

    def _operation(self, i: int, stream: int) -> Array:
        """Return when an operation ends, (D,) [s]."""
        indptr, indices = self._w.edges
        start = issued = self._host.issue(i, stream)
        before = self._streams.get(stream)
        if before is not None:
            start = np.maximum(start, before + self._cost.interval)
        for j in indices[indptr[i] : indptr[i + 1]].tolist() if i in self._waiting else ():
            if j in self._finish:
                start = np.maximum(start, self._finish[j])
        end: Array = start + self._early.run(i, issued, start)
        self._streams[stream] = end
        if i in self._awaited:
            self._finish[i] = end
        if self._spans is not None:
            self._spans.append((start, end))
        if self._record is not None:
            self._record.device(i, self._host.now, start, end)
        return end

    def _close(self, latest: Array) -> None:
        self._host.close(latest)
        if self._record is not None:
            self._record.close(self._host.now)
        if self._spans:
            starts, ends = (np.vstack([np.broadcast_to(x, self._count) for x in part])
                            for part in zip(*self._spans, strict=True))  # fmt: skip
            self._active = self._active + covered(starts, ends)
            self._spans = []


def covered(starts: Array, ends: Array) -> Array:
    """Return how long at least one of K spans lasts, on each of D designs.

    Parameters
    ----------
    starts, ends : array, shape (K, D)

    Examples
    --------
    >>> covered(np.array([[0.0], [1.0], [5.0]]), np.array([[3.0], [2.0], [6.0]])).tolist()
    [4.0]
    """
    order = np.argsort(starts, axis=0, kind="stable")
    starts, ends = (np.take_along_axis(x, order, axis=0) for x in (starts, ends))
    reached = np.maximum.accumulate(ends, axis=0)
    since = np.vstack([starts[:1], np.maximum(starts[1:], reached[:-1])])
    total: Array = np.maximum(reached - since, 0.0).sum(axis=0)
    return total


class _Early:
    """Durations where weights may be loaded ahead, one operation at a time.

    Loads for an operation begin when it has been issued and the loads of the one before are done.
    """

    def __init__(self, deep: Array | None, time: Durations) -> None:
        self._deep, self._time = deep, time
        self.busy: Array = time.busy() if deep is None else np.zeros(time.table.shape[1])
        self.open()

    def open(self) -> None:
        """Start a step: nothing is being loaded."""
        self._free: Array = np.zeros(1)

    def run(self, i: int, issued: Array, start: Array) -> Array:
        """Return how long an operation takes that was issued and starts so, (D,) [s]."""
        time: Array = self._time.of(i)
        if self._deep is None:
            return time
        channel, ahead, gain = self._time.early_of(i)
        idle = np.maximum(start - np.maximum(issued, self._free), 0.0)
        there = np.minimum(np.minimum(idle, self._deep), ahead)
        time = time - np.minimum(there, gain)
        self._free = np.maximum(start, self._free) + channel - there
        self.busy = self.busy + time
        return time


def _cross_stream(w: Workload) -> tuple[frozenset[int], frozenset[int]]:
    """Return operations with a dependency that stream order does not give, and what they await."""
    indptr, indices = w.edges
    later = np.repeat(np.arange(len(w)), np.diff(indptr))
    crossing = w["stream"][later] != w["stream"][indices]
    return frozenset(later[crossing].tolist()), frozenset(indices[crossing].tolist())
