"""Events of a Kineto trace as columns.

A trace of a million events is decoded piece by piece into typed records and at once into columns:
names, shapes and threads become numbers into short lists, times become microseconds from the first
event. What nobody asks for (flow arrows, Python functions) is counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from operator import attrgetter
from types import GenericAlias
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from npusim.importers.files import Numbering
from npusim.importers.kineto_sizes import Plain, Sized, Sizes, size_keys, size_of, texts

DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
RANGE = "cuda_profiler_range"
RUNTIME = ("cuda_runtime", "cuda_driver", "hip_runtime", "hip_driver", "runtime", "driver")
OPERATOR, ANNOTATION = "cpu_op", "user_annotation"
LONGEST_US = 1e12
LATEST_US = 1e20
_LARGEST_CORRELATION = 2**62

# Beyond this a float of microseconds is coarser than a nanosecond.
COARSE_US = 2.0**43


class Launched(msgspec.Struct, gc=False):
    """What joins a runtime call with what it launched."""

    correlation: Plain = None


class Event(msgspec.Struct, gc=False):
    """One event of a Chrome trace."""

    ph: str = ""
    cat: str | None = None
    name: Plain = ""
    ts: float | None = None
    dur: float | None = None
    pid: Plain = None
    tid: Plain = None
    args: msgspec.Raw = msgspec.Raw()


class ExactEvent(Event, gc=False):
    """An event whose time does not fit a float, as microseconds since 1970 do not."""

    ts: Decimal | None = None  # type: ignore[assignment]


T = TypeVar("T")
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Short = NDArray[np.int32]  # a million events are three numbers each


@dataclass(frozen=True)
class Spans:
    """Events of one sort, in the order of the file.

    Attributes
    ----------
    start, length : array, shape (N,)
        Microseconds; from the first event of the trace.
    name, thread, detail : array of int32, shape (N,)
        Numbers into tables: of names, of (pid, tid), of shapes (operators) or sizes (device).
    correlation : array, shape (N,)
        -1 where there is none.
    """

    start: Floats
    length: Floats
    name: Short
    thread: Short
    detail: Short
    correlation: Codes

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: Any) -> Spans:
        """Return some of the events."""
        return Spans(self.start[rows], self.length[rows], self.name[rows], self.thread[rows],
                     self.detail[rows], self.correlation[rows])  # fmt: skip

    @staticmethod
    def none() -> Spans:
        """Return no events."""
        short = np.zeros(0, dtype=np.int32)
        return Spans(np.zeros(0), np.zeros(0), short, short, short, np.zeros(0, dtype=np.int64))

    @property
    def stop(self) -> Floats:
        """End of each event [us]."""
        return self.start + self.length


@dataclass(frozen=True)
class Range:
    """A kernel of which only counters were taken: the times of its event are made up."""

    name: str
    counters: dict[str, float]


@dataclass(frozen=True)
class Wrong:
    """A time that is none: which event of the piece, which field, what it holds."""

    event: int
    field: str
    value: Any


@dataclass(frozen=True)
class Columns:
    """One piece of a trace, with tables of its own.

    Attributes
    ----------
    operators, runtime, device, marks : Spans
        Framework operators, runtime calls, device operations, annotations.
    names, threads, shapes, sizes : list
        What the numbers stand for; shapes are the text of an operator's arguments.
    ranges : list of Range
    events : int
        Events in the piece.
    wrong : Wrong, optional
        The first event that has a time which is none.
    """

    operators: Spans
    runtime: Spans
    device: Spans
    marks: Spans
    names: list[str]
    threads: list[tuple[Any, Any]]
    shapes: list[bytes]
    sizes: list[Sizes]
    ranges: list[Range]
    events: int
    wrong: Wrong | None = None


_GROUPS: dict[str | None, int] = {OPERATOR: 0, ANNOTATION: 3, RANGE: 4, **dict.fromkeys(RUNTIME, 1),
           **dict.fromkeys(DEVICE, 2)}  # fmt: skip


def columns_of(events: Sequence[Event], base: Decimal) -> Columns:
    """Return the events of a piece as columns.

    Parameters
    ----------
    events : sequence of Event
    base : Decimal
        Time that counts as zero [us].
    """
    try:
        return _columns(events, base)
    except _Unreadable as error:
        at = next(i for i, e in enumerate(events) if e is error.event)
        problem = Wrong(at, "args", str(error))
        return replace(_columns([], base), events=len(events), wrong=problem)


def _columns(events: Sequence[Event], base: Decimal) -> Columns:
    groups: tuple[list[Event], ...] = ([], [], [], [], [])
    put = {category: groups[group].append for category, group in _GROUPS.items()}.get
    for e in events:
        if e.ph == "X":
            put(e.cat, _nowhere)(e)
    operators, runtime, device, marks, ranges = groups
    names, threads, sizes = Numbering(), Numbering(), Numbering()
    shape, shapes = _shapes(operators)
    sized = _arguments(device, Sized)
    size = _codes(sizes, size_keys([e.cat for e in device], sized), len(device))
    joined = _arguments(runtime, Launched)
    made = [
        _spans(operators, names, threads, shape, None, base),
        _spans(runtime, names, threads, None, joined, base),
        _spans(device, names, None, size, sized, base),
        _spans(marks, names, None, None, None, base),
    ]
    return Columns(
        made[0], made[1], made[2], made[3], [str(n) for n in names], list(threads),
        shapes, [size_of(key) for key in sizes],
        [Range(str(e.name), a or {})
         for e, a in zip(ranges, _arguments(ranges, dict[str, float]), strict=True)], len(events),
        None if _all_known(made) else _first_wrong(events, zip(groups, made, strict=False)),
    )  # fmt: skip


def _nowhere(_: Event) -> None:
    """Take an event that nobody asks for."""


class _Unreadable(Exception):
    """Arguments that are not what the profiler writes."""

    def __init__(self, event: Event, problem: str) -> None:
        super().__init__(problem)
        self.event = event


_NAME, _THREAD = attrgetter("name"), attrgetter("pid", "tid")
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _arguments(events: Sequence[Event], kind: type[T]) -> list[T | None]:
    """Return the arguments of events, None where one has none."""
    raw = [e.args or b"null" for e in events]
    try:
        wanted = GenericAlias(list, (kind | None,))
        found: list[T | None] = decoder(wanted).decode(b"[%b]" % b",".join(raw))
        return found
    except _BROKEN:
        pass
    for e, text in zip(events, raw, strict=True):  # which of them it is
        try:
            msgspec.json.decode(text, type=kind | None)
        except _BROKEN as error:
            raise _Unreadable(e, str(error)) from None
    raise _Unreadable(events[0], "not JSON")


@cache
def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return what decodes JSON of a type; making one takes as long as some hundred events."""
    return msgspec.json.Decoder(kind)


def _codes(table: Numbering, keys: Iterable[Any], count: int) -> Short:
    """Return the number of each key."""
    return np.fromiter(map(table.__getitem__, keys), np.int32, count)


def _thread_codes(table: Numbering, events: Sequence[Event]) -> Short:
    """Return the number of each event's thread; most pieces are of one thread alone."""
    processes, threads = {e.pid for e in events}, {e.tid for e in events}
    if len(processes) == len(threads) == 1:
        return np.full(len(events), table[processes.pop(), threads.pop()], dtype=np.int32)
    return _codes(table, map(_THREAD, events), len(events))


def shape_key(raw: bytes) -> bytes:
    """Return what tells an operator's arguments apart.

    What differs from one call to the next (ids) stands before the first list and behind the last:
    arguments that agree between these are the same.

    Examples
    --------
    >>> shape_key(b'{"External id": 7, "Input Dims": [[2, 3]], "Ev Idx": 6}')
    b'[2, 3]'
    """
    return raw.partition(b"[")[2].rpartition(b"]")[0]


def _shapes(operators: Sequence[Event]) -> tuple[Short, list[bytes]]:
    """Return which arguments each operator has, and the distinct arguments as text."""
    if not operators:
        return np.zeros(0, dtype=np.int32), []
    raw = texts([e.args for e in operators])
    table = Numbering()
    # `shape_key`, without the call
    codes = [table[r.partition(b"[")[2].rpartition(b"]")[0]] for r in raw]
    whole: list[bytes] = []
    at = -1
    for code in range(len(table)):
        at = codes.index(code, at + 1)
        whole.append(raw[at])
    return np.array(codes, dtype=np.int32), whole


def _spans(
    events: Sequence[Event],
    names: Numbering,
    threads: Numbering | None,
    detail: Short | None,
    arguments: Sequence[Launched | Sized | None] | None,
    base: Decimal,
) -> Spans:
    """Return events as columns; a time that is missing is not-a-number."""
    if not events:
        return Spans.none()
    times: list[Any] = [e.ts for e in events]
    if isinstance(events[0], ExactEvent):
        start = np.array([None if t is None else t - base for t in times], dtype=np.float64)
    else:
        start = np.array(times, dtype=np.float64) - float(base)
    none = np.zeros(len(events), dtype=np.int32)
    return Spans(
        start,
        np.array([e.dur for e in events], dtype=np.float64),
        _codes(names, map(_NAME, events), len(events)),
        none if threads is None else _thread_codes(threads, events),
        none if detail is None else detail,
        np.full(len(events), -1, dtype=np.int64) if arguments is None
        else np.array(_correlations(arguments), dtype=np.int64),
    )  # fmt: skip


def _all_known(made: Sequence[Spans]) -> bool:
    """Return whether all times are there and in their limits, as they nearly always are."""
    start = np.concatenate([s.start for s in made])
    length = np.concatenate([s.length for s in made])
    return not len(start) or bool(
        start.min() >= -LATEST_US and start.max() <= LATEST_US
        and length.min() >= 0 and length.max() <= LONGEST_US
    )  # fmt: skip


def _first_wrong(
    events: Sequence[Event], groups: Iterable[tuple[list[Event], Spans]]
) -> Wrong | None:
    """Return the first event whose times are none; only device operations must have them."""
    found: dict[int, str] = {}
    for members, spans in groups:
        must = bool(members) and members[0].cat in DEVICE
        for field, values, low, high in (
            ("ts", spans.start, -LATEST_US, LATEST_US), ("dur", spans.length, 0.0, LONGEST_US),
        ):  # fmt: skip
            bad = ~((values >= low) & (values <= high)) & (must | ~np.isnan(values))
            if bad.any():
                found.setdefault(id(members[int(np.argmax(bad))]), field)
    if not found:
        return None
    at = next(i for i, e in enumerate(events) if id(e) in found)
    field = found[id(events[at])]
    value = getattr(events[at], field)
    return Wrong(at, field, None if value is None else float(value))


def _correlations(arguments: Sequence[Launched | Sized | None]) -> list[int]:
    values = [a.correlation if a is not None else None for a in arguments]
    return [v if type(v) is int and 0 <= v < _LARGEST_CORRELATION else -1 for v in values]
