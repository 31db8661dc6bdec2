"""Timelines as events of a Chrome trace, in the order of their times.

Source: Trace Event Format (Google), https://docs.google.com/document/d/
1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Its times are in microseconds; here they lie on whole
nanoseconds, so that of two pieces that follow each other neither viewer sees an overlap.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from npusim.errors import InputError
from npusim.report.labels import labels
from npusim.sides import CARRIED_OVER, Side
from npusim.transforms import changes
from npusim.workload import BYTES, HOST_PARTS, Workload

Event = dict[str, Any]
Times = NDArray[np.int64]

_STEPS, _HOST, _FIRST_STREAM = 10, 11, 12  # threads
_LONGEST_S = 2.0**53 * 1e-9  # what a number of a viewer can tell to the nanosecond

# Colours that chrome://tracing has names for.
_COLOURS = MappingProxyType({
    "floor": "generic_work", "memory": "rail_response", "compute": "rail_load",
    CARRIED_OVER: "rail_idle", "wait": "grey", "full": "grey", "sync": "thread_state_iowait",
})  # fmt: skip
_NAMES = MappingProxyType({
    "sync": "return of a wait", "tail": "after the last launch", "wait": "wait for the device",
    "full": "wait for room in the queue",
})  # fmt: skip


def events(sides: Sequence[Side]) -> Iterator[bytes]:
    """Yield the events of some timelines, each a process, as JSON.

    Raises
    ------
    InputError
        A timeline that is too long to be told to the nanosecond.
    """
    encode = msgspec.json.Encoder().encode
    processes = [_Process(side, pid, len(sides)) for pid, side in enumerate(sides, 1)]
    for process in processes:
        yield from map(encode, process.about())
    lanes = [lane for process in processes for lane in process.lanes()]
    yield from map(encode, heapq.merge(*lanes, key=itemgetter("ts")))


class _Process:
    """One timeline: threads for its steps, its host and its streams."""

    def __init__(self, side: Side, pid: int, sides: int) -> None:
        self._side, self._pid, self._sides = side, pid, sides
        self._w = side.timeline.workload
        found = side.timeline
        if not found.steps[-1] <= _LONGEST_S:
            raise InputError("too long for a timeline", file=self._w.name,
                             value=f"{found.steps[-1]:.3g} s",
                             allowed=f"up to {_LONGEST_S:.3g} s")  # fmt: skip
        self._steps, self._issued, self._start, self._end = map(
            _nanoseconds, (found.steps, found.issued, found.start, found.end)
        )
        self._measured = self._w.meta.get("measured") is not False and not changes(self._w)
        self._operator = self._w.text("operator").tolist()
        self._label = _labels(self._w)
        self._thread, self._streams = _threads(self._w["stream"], self._start, self._end)
        self._launched = self._first_launched() if side.has_host else []

    def about(self) -> Iterator[Event]:
        """Yield what the process and its threads are called, and in which order they stand."""
        yield self._named("process", 0, self._side.title)
        threads = {_STEPS: "steps", **({_HOST: "host"} if self._side.has_host else {})}
        for tid, name in (threads | self._streams).items():
            yield self._named("thread", tid, name)
            yield self._meta("thread_sort_index", tid, {"sort_index": tid})
        yield self._meta("process_sort_index", 0, {"sort_index": self._pid})

    def lanes(self) -> list[Iterator[Event]]:
        """Return the events, each lane in the order of time.

        Of what begins at the same time the host's is before its flow, which is tied to it.
        """
        lanes = [self._step_spans(), self._operations(),
                 self._counter("running", self._start, self._end)]  # fmt: skip
        if self._side.has_host:
            lanes += [self._host_spans(), self._launches(),
                      self._counter("issued, not finished", self._issued, self._end)]  # fmt: skip
        return lanes

    def _meta(self, what: str, tid: int, args: Event) -> Event:
        return {"ph": "M", "pid": self._pid, "tid": tid, "name": what, "args": args}

    def _named(self, what: str, tid: int, name: str) -> Event:
        return self._meta(f"{what}_name", tid, {"name": name})

    def _span(self, tid: int, start: int, end: int, name: str, kind: str, args: Event) -> Event:
        event = {"ph": "X", "pid": self._pid, "tid": tid, "ts": start / 1e3,
                 "dur": (end - start) / 1e3, "name": name, "cat": kind, "args": args}  # fmt: skip
        if kind in _COLOURS:
            event["cname"] = _COLOURS[kind]
        return event

    def _step_spans(self) -> Iterator[Event]:
        w, spans = self._w, self._side.timeline.spans
        of_trace = w.meta.get("steps_of_trace", range(len(w.steps)))  # numbers in the capture
        count, busy = (np.bincount(w["step"], weights) for weights in
                       (None, self._end - self._start))  # fmt: skip
        idle = [s for s in spans if s.what in ("wait", "full")]
        waits = np.bincount(w["step"][[s.operation for s in idle]],
                            [s.end - s.start for s in idle], len(w.steps))  # fmt: skip
        begins = zip(np.unique(w["step"]).tolist(), self._steps.tolist(),
                     self._steps[1:].tolist(), strict=False)  # fmt: skip
        for step, start, end in begins:
            args = {"operations": int(count[step]), "device_busy_us": float(busy[step]) / 1e3}
            if self._side.has_host:
                args["host_waits_us"] = _microseconds(waits[step])
            if self._measured:
                args["measured_us"] = _microseconds(w.steps.wall_s[step])
            yield self._span(_STEPS, start, end, f"step {of_trace[step]}", "step", args)

    def _host_spans(self) -> Iterator[Event]:
        found = self._side.timeline.spans
        starts, ends = (_nanoseconds([s[i] for s in found]).tolist() for i in (2, 3))
        parts = np.round(np.stack([self._w[c] for c in HOST_PARTS], axis=1) * 1e6, 3)
        measured = self._side.launch == "eager" and self._w.meta.get("host") == "measured"
        keys = [c.removesuffix("_s") for c in HOST_PARTS]
        for s, start, end in zip(found, starts, ends, strict=True):
            if end == start:
                continue
            i, name = s.operation, _NAMES.get(s.what)
            args: Event = {"operation": i}
            if s.what == "submit":
                name = f"submit {self._side.launch}"
            elif s.what == "work" and start >= self._issued[i]:
                name = "before a wait"
            elif s.what == "work":
                known = self._operator[i] not in ("", "unknown")
                name, args["kernel"] = self._operator[i] if known else None, self._label[i]
                if measured:
                    args["traced_us"] = dict(zip(keys, parts[i].tolist(), strict=True))
            yield self._span(_HOST, start, end, name or self._label[i], s.what, args)

    def _operations(self) -> Iterator[Event]:
        w, side = self._w, self._side
        kernel, kind, bound = (t.tolist() for t in (w.text("kernel"), w.text("kind"), side.bound))
        duration = w["duration_s"] if self._measured else np.full(len(w), np.nan)
        predicted, measured = np.round(np.stack([side.predicted_s, duration]) * 1e6, 3).tolist()
        start, end, step = (t.tolist() for t in (self._start, self._end, w["step"]))
        issued = (self._issued / 1e3).tolist() if side.has_host else [math.nan] * len(w)
        (work, which), launched = self._work(), set(self._launched)
        for i in np.argsort(self._start, kind="stable").tolist():
            args: Event = {"kind": kind[i], "operator": self._operator[i]}
            if bound[i]:
                args["bound"] = bound[i]
            for name, time in (("predicted_us", predicted[i]), ("measured_us", measured[i]),
                               ("issued_us", issued[i])):  # fmt: skip
                if not math.isnan(time):
                    args[name] = time
            args |= work[which[i]]
            args |= {"step": step[i], "operation": i, "kernel": kernel[i]}
            yield self._span(self._thread[i], start[i], end[i], self._label[i],
                             bound[i] or "unknown", args)  # fmt: skip
            if i in launched:
                yield {**self._flow("f", i, self._thread[i], start[i]), "bp": "e"}

    def _work(self) -> tuple[list[Event], list[int]]:
        """Return FLOP and bytes of each distinct operation, and which one each is."""
        rows, which = self._w.unique()
        found: list[Event] = []
        for i in rows.tolist():
            moved = {c: float(self._w[c][i]) for c in BYTES}
            served = {level: float(np.rint(b[i])) for level, b in self._side.served.items()}
            work = {"flop": float(self._w["flop"][i]), "bytes": moved, "served_by": served}
            found.append(_without_nothing(work))
        return found, which.tolist()

    def _first_launched(self) -> list[int]:
        """Return the operations to which a flow goes: all, or the first of what is submitted."""
        step = np.unique(self._w["step"], return_inverse=True)[1]
        worked = self._issued > self._steps[step]  # else nothing of the host comes before it
        if self._side.launch != "eager":
            first = [s.operation for s in self._side.timeline.spans if s.what == "submit"]
            worked &= np.isin(np.arange(len(self._w)), first)
        found: list[int] = np.flatnonzero(worked).tolist()
        return found

    def _launches(self) -> Iterator[Event]:
        for i in self._launched:  # a nanosecond before that piece of the host's time ends
            yield self._flow("s", i, _HOST, int(self._issued[i]) - 1)

    def _flow(self, phase: str, operation: int, tid: int, at: int) -> Event:
        return {"ph": phase, "pid": self._pid, "tid": tid, "ts": at / 1e3, "name": "launch",
                "cat": "launch", "id": self._sides * operation + self._pid}  # fmt: skip

    def _counter(self, name: str, since: Times, until: Times) -> Iterator[Event]:
        """Yield how many operations are between two moments, wherever that changes."""
        at, which = np.unique(np.concatenate([since, until]), return_inverse=True)
        change = np.bincount(which, np.repeat([1.0, -1.0], len(since)))
        total = np.cumsum(change).astype(np.int64)
        kept = np.append(0, np.flatnonzero(change[1:]) + 1)
        for moment, count in zip((at[kept] / 1e3).tolist(), total[kept].tolist(), strict=True):
            yield {"ph": "C", "pid": self._pid, "tid": _STEPS, "ts": moment, "name": name,
                   "args": {"operations": count}}  # fmt: skip


def _threads(
    stream: NDArray[np.int64], start: Times, end: Times
) -> tuple[list[int], dict[int, str]]:
    """Return the thread of each operation, and what each thread is called.

    A stream of a trace may run several operations at the same time; a thread of a viewer cannot:
    such a stream has several.
    """
    thread, names, before = [0] * len(stream), dict[int, str](), None
    busy: list[tuple[int, int]] = []  # until when, and which thread
    for i in np.lexsort((start, stream)).tolist():
        number = int(stream[i])
        if number != before:
            busy, before = [], number
        if busy and busy[0][0] <= start[i]:
            tid = heapq.heappop(busy)[1]
        else:
            tid = _FIRST_STREAM + len(names)
            name = f"stream {number}" if number >= 0 else "stream unknown"
            names[tid] = f"{name} ({len(busy) + 1})" if busy else name
        heapq.heappush(busy, (int(end[i]), tid))
        thread[i] = tid
    return thread, names


def _labels(w: Workload) -> list[str]:
    """Return a short name of the kernel of each operation."""
    codes, first, which = np.unique(w["kernel"], return_index=True, return_inverse=True)
    names = [w.labels["kernel"][c] for c in codes.tolist()]
    dtypes, libraries = (w.text(c)[first].tolist() for c in ("dtype", "library"))
    short = labels(names, dtypes, libraries)
    return [short[c] for c in which.tolist()]


def _without_nothing(content: Event) -> Event:
    """Return what is neither zero nor empty, at any depth."""
    inner = {k: _without_nothing(v) if isinstance(v, dict) else v for k, v in content.items()}
    return {k: v for k, v in inner.items() if v}


def _nanoseconds(seconds: ArrayLike) -> Times:
    return np.rint(np.asarray(seconds, dtype=np.float64) * 1e9).astype(np.int64)


def _microseconds(seconds: float) -> float:
    return round(float(seconds) * 1e6, 3)
