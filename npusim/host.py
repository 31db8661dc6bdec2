"""The host of a replay: it works between launches, and waits where program or queue make it wait.

On every design its work and its waits add up to the wall time of the step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.launch import LaunchCost
from npusim.workload import Workload

Array = NDArray[np.float64]

# Told of each piece of the host's time: what it is, the operation, start and end, (D,) [s].
Told = Callable[[str, int, Array, Array], None]


class Host:
    """The host lane of D designs, one operation after another.

    Parameters
    ----------
    w : Workload
    designs : Designs
    cost : LaunchCost
    told : function, optional
        Called for each piece of work (``work``, ``submit``, ``sync``, ``tail``) and each wait
        (``wait``, ``full``).

    Attributes
    ----------
    now : array, shape (D,)
        Where it is in its step [s].
    wall, waited : array, shape (D,)
        Sum over the steps that are closed [s]: from start to end, and what of that it waited.
    """

    def __init__(
        self, w: Workload, designs: Designs, cost: LaunchCost, told: Told | None = None
    ) -> None:
        self._w, self._cost, self._told = w, cost, told
        self._count = len(designs)
        self._sync = designs["host.sync"]
        self.measured = w.meta.get("host") == "measured"
        self.generated = w.meta.get("host") == "generated"
        self._work, self._presync, self._tail = host_work(w, designs)
        self._copies = w.mask("kind", "memcpy")
        self._waits = w["sync"] if cost.waits else np.zeros(len(w), dtype=bool)
        self._sizes = _pieces(w, self._waits)
        self._threads = _Threads(designs) if cost.per_operation else None
        self._queues = _Queues(designs, len(w)) if cost.per_operation else None
        self._fresh = True  # nothing is issued since the step began, or since the host waited
        self._step: int | None = None
        self._last = 0
        self.now = self.wall = self.waited = np.zeros(self._count)

    def open(self, step: int) -> None:
        """Start a step."""
        self._step, self._fresh = step, True
        self.now = np.zeros(self._count)
        if self._threads is not None and self._queues is not None:
            self._threads.start(self.now)
            self._queues.start()

    def issue(self, i: int, stream: int) -> Array:
        """Advance to the issue of an operation; return when the device may start it."""
        opens, self._last, self._fresh = self._fresh, i, False
        if self._threads is not None and self._queues is not None:
            self._until(i, self._threads.ready(self.now, self._work[i]), "work")
            room = self._queues.room(stream)
            if room is not None:  # the call itself blocks
                self._wait(i, room, "full")
            self._threads.leave(self.now)
            return self.now + (self._cost.copy if self._copies[i] else self._cost.submit)
        if opens:
            self._until(i, self.now + self._cost.calls(self._sizes[i]), "submit")
        return self.now + self._cost.submit

    def after(self, i: int, stream: int, end: Array, done: Array) -> None:
        """Note the end of an operation; wait for all that is issued where the program waits."""
        if self._queues is not None:
            self._queues.add(stream, end)
        if not self._waits[i]:
            return
        if self._cost.per_operation:
            self._until(i, self.now + self._presync[i], "work")
        self._wait(i, done, "wait")
        if not (self._cost.per_operation and self.measured):
            self._until(i, self.now + self._sync, "sync")
        self._fresh = True
        if self._threads is not None:
            self._threads.start(self.now)

    def close(self, done: Array) -> None:
        """End a step: the host waits for the device if it has not yet."""
        if self._step is None:
            return
        if self._cost.per_operation and self.measured:
            self._until(self._last, self.now + self._tail[self._step], "tail")
        elif not self._fresh:  # else it has waited for the last operation already
            self._wait(self._last, done, "wait")
            self._until(self._last, self.now + self._sync, "sync")
        if self.generated:  # whoever launches it, the program goes on after the step
            self._until(self._last, self.now + self._tail[self._step], "tail")
        self._wait(self._last, done, "wait")
        self.wall = self.wall + self.now

    def _until(self, i: int, then: Array, what: str) -> None:
        if self._told is not None:
            self._told(what, i, self.now, then)
        self.now = then

    def _wait(self, i: int, done: Array, what: str) -> None:
        then = np.maximum(self.now, done)
        if self._told is not None:
            self._told(what, i, self.now, then)
        self.waited = self.waited + (then - self.now)
        self.now = then


def host_work(w: Workload, designs: Designs) -> tuple[Array, Array, Array]:
    """Return the host's work on each design: before launches, before waits, after the last.

    Work that was measured is divided by ``host.speed``; where none was, each launch takes
    ``launch.eager.host`` of it. Of a generated workload launches take what their lowering knows of
    them, and the program works on after each step, however that was launched.

    If the profiler is to be taken out (``meta["profiler"]``), what it took for each operator that
    it recorded goes, as far as there is work.

    Returns
    -------
    work, presync : array, shape (K, D) or (K, 1)
    tail : array, shape (S, D) or (S, 1)
        [s].
    """
    speed = designs["host.speed"]
    if w.meta.get("host") != "measured":
        each = designs["launch.eager.host"] / speed
        known = w["host_s"][:, None] if w.meta.get("host") == "generated" else np.zeros((len(w), 1))
        work = np.where(known > 0, known / speed, each) if known.any() else each
        presync = np.zeros((len(w), 1))
        return np.broadcast_to(work, (len(w), len(each))), presync, w.steps.tail_s[:, None] / speed
    work = w["host_s"][:, None]
    if w.meta.get("profiler") == "out":
        work = np.maximum(work - w["records"][:, None] * designs["host.record"], 0.0)
    return work / speed, w["presync_s"][:, None] / speed, w.steps.tail_s[:, None] / speed


def after_steps(w: Workload, designs: Designs) -> Array:
    """Return what the program does after all steps, however these are launched, (D,) or (1,) [s].

    Known of generated workloads; that of a traced one is among its launches.
    """
    tail = w.steps.tail_s.sum() if w.meta.get("host") == "generated" else 0.0
    after: Array = tail / designs["host.speed"]
    return after


def _pieces(w: Workload, waits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many operations are submitted as one with each, shape (K,)."""
    ends = waits | np.append(np.diff(w["step"]) != 0, True)
    piece = np.concatenate([[0], np.cumsum(ends[:-1])])
    sizes: NDArray[np.int64] = np.bincount(piece)[piece]
    return sizes


class _Threads:
    """Threads that prepare launches, which leave in order: the i-th is the (i mod T)-th thread's.

    A thread takes up its next launch when the one before has left.
    """

    def __init__(self, designs: Designs) -> None:
        self._threads = designs["host.threads"].astype(np.int64)
        self._many = int(self._threads.max())
        self._design = np.arange(len(designs))
        self._next = 0

    def start(self, now: Array) -> None:
        """All begin now."""
        if self._many > 1:
            self._free = np.tile(now, (self._many, 1))

    def ready(self, now: Array, work: Array) -> Array:
        """Return when the next launch may leave, (D,) [s]."""
        if self._many == 1:
            return now + work
        self._thread = np.broadcast_to(self._next % self._threads, len(self._design))
        self._next += 1
        return np.maximum(now, self._free[self._thread, self._design] + work)

    def leave(self, now: Array) -> None:
        """Note that it has left."""
        if self._many > 1:
            self._free[self._thread, self._design] = now


class _Queues:
    """Operations that each stream holds, no more than its depth."""

    def __init__(self, designs: Designs, operations: int) -> None:
        self._depth = designs["launch.eager.depth"].astype(np.int64)
        self._least, self._most = int(self._depth.min()), int(self._depth.max())
        self._kept = min(self._most, operations) if self._least < operations else 0
        self._of = [(int(d), self._depth == d) for d in np.unique(self._depth)]
        self._count = len(designs)
        self._ends: dict[int, deque[Array]] = {}

    def start(self) -> None:
        """Nothing is queued."""
        self._ends = {}

    def add(self, stream: int, end: Array) -> None:
        """Queue an operation that ends then."""
        self._ends.setdefault(stream, deque(maxlen=self._kept)).append(end)

    def room(self, stream: int) -> Array | None:
        """Return when the stream has room for another, (D,) [s]; None if it has."""
        ends = self._ends.get(stream)
        if ends is None or len(ends) < self._least:
            return None
        if self._least == self._most:
            return ends[-self._least]
        room = np.zeros(self._count)
        for depth, here in self._of:
            if depth > len(ends):
                break
            room[here] = np.broadcast_to(ends[-depth], room.shape)[here]
        return room
