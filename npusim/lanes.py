"""Replay: host lane and device streams to wall time, for many designs at once.

An operation starts when the host has issued it, its stream is free and what it depends on is
done. The host works between launches, and waits where the traced program waited. Lanes add up:
on every design, wall time is host work plus host waiting, and device-busy plus device idle time
on a single stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.errors import InputError
from npusim.models.kernel import kernel_cost, kernel_time
from npusim.models.launch import LaunchCost, launch_cost
from npusim.models.prefetch import Buffer, depth
from npusim.workload import Workload

Array = NDArray[np.float64]

MODES = ("model", "transfer")
_BLOCK = 512


@dataclass(frozen=True)
class Durations:
    """Device time of K operations on D designs: ``table[row[k]] * scale[k]`` [s].

    Attributes
    ----------
    table : array, shape (U + 1, D)
        One row a distinct operation, and a last one of ones for times that are carried over.
    row : array of int, shape (K,)
        Which row each operation takes.
    scale : array, shape (K,)
        What its row is multiplied by.
    early : array, shape (3, U + 1, D), optional
        Where a machine loads weights ahead: ``channel``, ``ahead`` and ``gain`` of
        `npusim.models.cost.Cost` for each row [s]. `table` is without it.
    """

    table: Array
    row: NDArray[np.intp]
    scale: Array
    early: Array | None = None

    def scaled(self, factor: Array | float) -> Durations:
        """Return modelled durations times a factor, one or of shape (D,); measured ones stay."""
        table = self.table.copy()
        table[:-1] *= factor
        if self.early is None:
            return Durations(table, self.row, self.scale)
        early = self.early.copy()
        early[:, :-1] *= factor
        return Durations(table, self.row, self.scale, early)

    def block(self, designs: slice) -> Durations:
        """Return those of some of the designs."""
        early = None if self.early is None else self.early[:, :, designs]
        return Durations(self.table[:, designs], self.row, self.scale, early)

    def early_of(self, operation: int) -> Array:
        """Return channel, ahead and gain of one operation, shape (3, D) [s]."""
        if self.early is None:
            return np.zeros((3, 1))
        times: Array = self.early[:, self.row[operation]] * self.scale[operation]
        return times

    def of(self, operation: int) -> Array:
        """Return the time of one operation, shape (D,) [s]."""
        time: Array = self.table[self.row[operation]] * self.scale[operation]
        return time

    def busy(self) -> Array:
        """Return the sum over operations, shape (D,) [s]."""
        counts = np.bincount(self.row, self.scale, len(self.table))
        # Not a matrix product: there the rounding of a column depends on where it stands, and
        # designs that are equally fast would seem to differ.
        total: Array = np.add.reduce(counts[:, None] * self.table, axis=0)
        return total


@dataclass(frozen=True)
class Replayed:
    """Totals of one workload on D designs, per step (mean over the steps), each shape (D,) [s].

    Attributes
    ----------
    wall_s : array
        From the start of a step to its end on the host.
    device_busy_s : array
        Sum of device times.
    host_busy_s : array
        Host work, waits taken out.
    launches : float
        Device operations a step.
    """

    wall_s: Array
    device_busy_s: Array
    host_busy_s: Array
    launches: float

    @property
    def idle_share(self) -> Array:
        """Share of wall time in which the device idles, for host or launch, shape (D,)."""
        return 1.0 - np.minimum(self.device_busy_s / self.wall_s, 1.0)


def durations(
    workload: Workload, designs: Designs, mode: str = "model", traced: Arch | None = None
) -> Durations:
    """Return the device time of every operation on every design.

    Parameters
    ----------
    workload : Workload
        K operations.
    designs : Designs
        D designs.
    mode : {"model", "transfer"}
        ``model`` uses shapes and the machine alone. ``transfer`` multiplies the measured time by
        the ratio of modelled times, so that the measured utilisation of each kernel is carried
        over. Operations without shapes keep their measured time in both.
    traced : Arch, optional
        The machine that was traced; ``transfer`` needs it.

    Returns
    -------
    Durations

    Raises
    ------
    InputError
        An unknown mode, or ``transfer`` without the traced machine.
    """
    rows, inverse = workload.unique()
    operations = workload.operations(rows)
    cost = kernel_cost(operations, designs)
    table = cost.time
    scale = np.ones(len(workload))
    if mode == "transfer":
        if workload.meta.get("measured") is False:
            raise InputError("nothing to transfer: the trace has no device times",
                             file=workload.name, hint="use --mode model")  # fmt: skip
        if traced is None:
            raise InputError("transfer needs the machine that was traced", file=workload.name,
                             value=workload.meta.get("device", ""),
                             hint="use --mode model")  # fmt: skip
        scale = workload["duration_s"] / kernel_time(operations, Designs(traced))[inverse, 0]
    elif mode != "model":
        raise InputError("unknown mode", value=mode, allowed=", ".join(MODES))
    # One more row of ones: times that no model can give are carried over as measured.
    table = np.vstack([table, np.ones((1, table.shape[1]))])
    kept = ~workload.classified
    row = np.where(kept, len(rows), inverse)
    early = None
    if depth(designs) is not None:
        early = np.zeros((3, *table.shape))
        early[:, :-1] = cost.channel, cost.ahead, cost.gain
        early[0, -1] = 1.0  # what nobody knows may need DRAM all the time
    return Durations(table, row, np.where(kept, workload["duration_s"], scale), early)


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
    if not cost.per_operation and len(np.unique(workload["stream"])) == 1:
        wall, busy, host = _in_order(workload, designs, time, cost)
    else:
        parts, start = [], 0
        for block in designs.blocks(_BLOCK) if designs.columns else [designs]:
            stop = start + len(block)
            parts.append(_lanes(workload, block, time.block(slice(start, stop)), launch))
            start = stop
        wall, busy, host = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return Replayed(wall / steps, busy / steps, host / steps, len(workload) / steps)


def _in_order(
    w: Workload, designs: Designs, time: Durations, cost: LaunchCost
) -> tuple[Array, Array, Array]:
    """Return what `_lanes` does where it is a sum: one stream, submitted in pieces.

    A piece ends where the host waits, and with the step. Within it operations follow each other
    at the interval; between two pieces lie the return of the wait and the next submission. Weights
    may be loaded ahead for all that is issued, where `_lanes` looks one operation ahead.
    """
    ends = np.append(np.diff(w["step"]) != 0, True)
    waits = w["sync"] if cost.waits else np.zeros(len(w), dtype=bool)
    steps, pieces = len(np.unique(w["step"])), int(np.sum(waits | ends))
    sync = designs["host.sync"]
    between = np.maximum(sync + cost.submit, cost.interval)
    buffer = depth(designs)
    busy = time.busy() if buffer is None else _loaded_early(buffer, time, waits | ends, cost)
    wall = (
        busy
        + steps * (cost.submit + sync)
        + (pieces - steps) * between
        + (len(w) - pieces) * cost.interval
    )
    host = pieces * (cost.submit + sync)
    wall, busy, host = (np.broadcast_to(x, len(designs)) for x in (wall, busy, host))
    return wall, busy, host


def _loaded_early(deep: Array, time: Durations, ends: NDArray[np.bool_], cost: LaunchCost) -> Array:
    """Return the sum over operations where weights are loaded ahead within a piece, (D,) [s]."""
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


def _lanes(
    w: Workload, designs: Designs, time: Durations, launch: str
) -> tuple[Array, Array, Array]:
    """Return wall, device-busy and host time of a block of designs, over the steps, (D,)."""
    cost = launch_cost(launch, designs)
    count = len(designs)
    host = _Host(w, designs, cost, count)
    early = _Early(depth(designs), time)
    streams: dict[int, Array] = {}
    finish: dict[int, Array] = {}
    indptr, indices = w.edges
    needed = _cross_stream(w)
    stream, step = w["stream"].tolist(), w["step"].tolist()
    latest = np.zeros(count)
    for i in range(len(w)):
        if i == 0 or step[i] != step[i - 1]:
            host.close(latest)
            host.open(step[i])
            early.open()
            streams, latest = {}, np.zeros(count)
        start = issued = host.issue(i)
        before = streams.get(stream[i])
        if before is not None:
            start = np.maximum(start, before + cost.interval)
        for j in indices[indptr[i] : indptr[i + 1]].tolist() if i in needed.waiting else ():
            if j in finish:
                start = np.maximum(start, finish[j])
        end = start + early.run(i, issued, start)
        streams[stream[i]] = end
        latest = np.maximum(latest, end) if len(streams) > 1 else end
        if i in needed.awaited:
            finish[i] = end
        host.after(i, latest)
    host.close(latest)
    return host.wall, np.broadcast_to(early.busy, count), host.busy


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


@dataclass(frozen=True)
class _Cross:
    """Operations with a dependency that stream order does not already give."""

    waiting: frozenset[int]
    awaited: frozenset[int]


def _cross_stream(w: Workload) -> _Cross:
    indptr, indices = w.edges
    later = np.repeat(np.arange(len(w)), np.diff(indptr))
    crossing = w["stream"][later] != w["stream"][indices]
    return _Cross(frozenset(later[crossing].tolist()), frozenset(indices[crossing].tolist()))


class _Host:
    """The host lane of a block of designs: where it is now, and what it has worked."""

    def __init__(self, w: Workload, designs: Designs, cost: LaunchCost, count: int) -> None:
        self._w, self._cost, self._count = w, cost, count
        self._speed, self._sync = designs["host.speed"], designs["host.sync"]
        self._measured = w.meta.get("host") == "measured"
        if self._measured:
            self._work, self._presync = w["host_s"], w["presync_s"]
        else:
            self._work = np.ones(len(w))
            self._presync = np.zeros(len(w))
        self._each = np.ones(1) if self._measured else designs["launch.eager.host"]
        self._copies = w.mask("kind", "memcpy")
        self._waits = w["sync"] if cost.waits else np.zeros(len(w), dtype=bool)
        self._fresh = True  # the next operation opens a piece that is submitted as one
        self._step: int | None = None
        self.now = self.busy = self.wall = np.zeros(count)

    def open(self, step: int) -> None:
        """Start a step."""
        self._step, self._fresh = step, True
        self.now = np.zeros(self._count)

    def issue(self, i: int) -> Array:
        """Advance to the issue of an operation; return when the device may start it."""
        if self._cost.per_operation:
            self._spend(self._work[i] * self._each / self._speed)
            return self.now + (self._cost.copy if self._copies[i] else self._cost.submit)
        if self._fresh:
            self._fresh = False
            self._spend(self._cost.submit)
        return self.now

    def after(self, i: int, done: Array) -> None:
        """Wait for the device where the program waits."""
        if not self._waits[i]:
            return
        if self._cost.per_operation:
            self._spend(self._presync[i] * self._each / self._speed)
            self.now = np.maximum(self.now, done)
            if not self._measured:
                self._spend(self._sync)
        else:
            self.now = np.maximum(self.now, done)
            self._spend(self._sync)
            self._fresh = True

    def close(self, done: Array) -> None:
        """End a step: the host waits for the device if it has not yet."""
        if self._step is None:
            return
        if self._cost.per_operation and self._measured:
            self._spend(self._w.steps.tail_s[self._step] / self._speed)
        elif not self._fresh or self._cost.per_operation:
            self.now = np.maximum(self.now, done)
            self._spend(self._sync)
        self.wall = self.wall + np.maximum(self.now, done)

    def _spend(self, time: Array) -> None:
        self.now = self.now + time
        self.busy = self.busy + time
