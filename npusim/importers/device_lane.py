"""Steps from timed device operations, for formats that say little of what launched them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from npusim.importers.assembly import StepColumns, no_host
from npusim.importers.host_lane import host_lane
from npusim.importers.host_parts import cover
from npusim.importers.work import Launch, Work

Time = int | Decimal
Span = tuple[Time, Time]
T = TypeVar("T")
At = TypeVar("At", int, float, Time)


@dataclass(frozen=True, slots=True)
class Timed:
    """One device operation, its times in the unit of the file so that none of them is rounded.

    Attributes
    ----------
    call : tuple of two times, optional
        Start and end of the runtime call that launched it.
    thread : int
        Any number of the host thread that made this call, -1 if unknown.
    """

    launch: Launch
    start: Time
    duration: Time
    work: Work
    stream: int = 0
    registers: int = 0
    shared_memory: float = 0.0
    call: Span | None = None
    group: str = ""
    thread: int = -1

    @property
    def issued(self) -> Time:
        """When the host launched it, or when it started if that is unknown."""
        return self.call[0] if self.call is not None else self.start


def span_of(operations: Sequence[Timed]) -> Span:
    """Return the first launch, or start where none is known, and the last end."""
    return min(o.issued for o in operations), max(o.start + o.duration for o in operations)


def inside(
    operations: Sequence[T], issued: Callable[[T], At], spans: Sequence[tuple[At, At]]
) -> tuple[list[list[T]], list[T]]:
    """Return the operations issued in each span, and those in none; spans are in order.

    Examples
    --------
    >>> inside([1, 4, 6, 9], int, [(0, 5), (8, 9)])
    ([[1, 4], [9]], [6])
    """
    members: list[list[T]] = [[] for _ in spans]
    rest: list[T] = []
    starts = [start for start, _ in spans]
    for o in operations:
        at = issued(o)
        i = bisect_right(starts, at) - 1
        (members[i] if i >= 0 and at <= spans[i][1] else rest).append(o)
    return members, rest


def step_of(
    operations: Sequence[Timed],
    per_second: int,
    span: Span | None = None,
    waits: Sequence[Span] = (),
) -> StepColumns:
    """Return one step.

    Parameters
    ----------
    operations : sequence of Timed
        In issue order, at least one.
    per_second : int
        Ticks of the file's clock in a second.
    span : tuple of two times, optional
        The step on that clock; by default from the first launch to the last end.
    waits : sequence of tuples of two times
        Synchronisation calls of the host.
    """
    start, stop = span or span_of(operations)

    def seconds(time: Time) -> float:
        return float(time - start) / per_second

    measured = {
        "start_s": np.array([max(seconds(o.start), 0.0) for o in operations]),
        "duration_s": np.array([float(o.duration) / per_second for o in operations]),
        "stream": np.array([o.stream for o in operations]),
        "registers": np.array([o.registers for o in operations]),
        "shared_memory": np.array([o.shared_memory for o in operations]),
    }
    host, tail = _host(operations, seconds, (start, stop), waits)
    launches, works = [o.launch for o in operations], [o.work for o in operations]
    unknown = ["unknown"] * len(operations)
    return StepColumns(launches, works, unknown, measured | host, seconds(stop), tail)


def _host(
    operations: Sequence[Timed],
    seconds: Callable[[Time], float],
    span: Span,
    waits: Sequence[Span],
) -> tuple[dict[str, NDArray[Any]], float]:
    """Return the host's columns and its work after the last operation [s].

    Of the host's calls only launches and waits are known: all else is the interpreter's. Nothing
    is known where no launch is.
    """
    found = no_host(len(operations))
    found["thread"] = np.array([o.thread for o in operations])
    calls = [(i, o, o.call) for i, o in enumerate(operations) if o.call is not None]
    if not calls:
        return found, 0.0
    known = [i for i, _, _ in calls]
    issued = np.array([[seconds(c[0]), seconds(c[1])] for _, _, c in calls])
    done = np.array([seconds(o.start + o.duration) for _, o, _ in calls])
    idle = np.array([[seconds(a), seconds(b)] for a, b in waits if span[0] <= a <= span[1]])
    idle = idle.reshape(-1, 2)
    lane = host_lane(0.0, seconds(span[1]), issued, done, idle,
                     np.array([o.work.kind == "memcpy" for _, o, _ in calls]))  # fmt: skip
    every = np.concatenate([issued, idle])
    in_calls = cover(*every[np.argsort(every[:, 0], kind="stable")].T)
    launch = np.minimum(in_calls.between(lane.since, lane.since + lane.work), lane.work)
    for column, spent in {
        "host_s": lane.work, "interpreter_s": lane.work - launch, "launch_s": launch,
        "presync_s": lane.presync, "sync": lane.sync,
    }.items():  # fmt: skip
        found[column][known] = spent
    return found, lane.tail
